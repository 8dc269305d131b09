"""The repositories on a real SQLite file and on a real PostgreSQL."""

import asyncio
import threading

import pytest
from sqlalchemy import text

from hub.errors import AlreadyExists, InvalidInput, NotFound, StorageUnavailable
from hub.keys import hash_secret, issue_key
from hub.policy import Fleet, Policy, Sharing, SharingKind, TrustClass, permits
from hub.storage.records import Role, UsageRecord
from hub.storage.repositories import Storage

NOW = 1_700_000_000.0


async def execute(storage, statement, **values):
    async with storage._engine.begin() as connection:
        await connection.execute(text(statement), values)


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
async def test_sqlite_is_set_up_as_promised(storage):
    async with storage._engine.connect() as connection:
        pragmas = {
            name: (await connection.exec_driver_sql(f"PRAGMA {name}")).scalar()
            for name in ("journal_mode", "foreign_keys", "busy_timeout", "journal_size_limit")
        }
    assert pragmas == {
        "journal_mode": "wal",
        "foreign_keys": 1,
        "busy_timeout": 10_000,
        "journal_size_limit": 64 * 2**20,
    }


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
async def test_what_is_administered_is_on_the_disk_before_it_is_told_and_liveness_is_not(storage):
    async def synchronous(transaction):
        async with transaction as connection:
            return (await connection.exec_driver_sql("PRAGMA synchronous")).scalar()

    database, normal, full = storage.database, 1, 2
    for _ in range(3):  # whatever the connection was used for before
        assert await synchronous(database.change()) == full
        assert await synchronous(database.note(durable=False)) == normal
        assert await synchronous(database.note()) == full


async def test_a_url_that_is_none_and_a_path_that_cannot_be_are_our_own_error():
    before = set(threading.enumerate())
    for url in ("nonsense", "sqlite+nothere:///x", "sqlite+aiosqlite:////nowhere/at/all/hub.db"):
        with pytest.raises(StorageUnavailable):
            await Storage.open(url)
    # The driver's thread tells the loop that it ends: the loop must still be there for it.
    for thread in set(threading.enumerate()) - before:
        await asyncio.to_thread(thread.join)


async def test_every_change_raises_the_revision_and_reading_does_not(storage, organisation, make_node):
    async def raised_by(change):
        before = await storage.settings.revision()
        result = await change
        return result, await storage.settings.revision() - before

    issued, by_key = await raised_by(issue_key(storage, organisation.id, name="k", now=NOW))
    node, by_node = await raised_by(make_node())
    changes = [
        storage.regions.add("us", None, "US"),
        storage.keys.revoke(issued.key.id, now=NOW),
        storage.nodes.revoke(node.id, now=NOW),
        storage.organisations.create("Others", now=NOW),
    ]
    assert [by_key, by_node, *[(await raised_by(change))[1] for change in changes]] == [1] * 6
    quiet = [
        storage.nodes.mark_seen([node.id], now=NOW),
        storage.keys.list(),
        storage.usage.add([record("req_1", issued.key.id)]),
    ]
    assert [(await raised_by(call))[1] for call in quiet] == [0, 0, 0]


async def test_a_refused_change_leaves_the_revision_alone(storage, organisation):
    before = await storage.settings.revision()
    with pytest.raises(AlreadyExists):
        await storage.organisations.create("Ours", now=NOW)
    with pytest.raises(NotFound):
        await storage.keys.revoke("key_none", now=NOW)
    assert await storage.settings.revision() == before


async def test_the_hub_id_is_drawn_once_even_by_many_at_the_same_moment(storage, database_url):
    async with await Storage.open(database_url) as other:
        drawn = await asyncio.gather(*(each.settings.hub_id() for each in [storage, other] * 5))
    assert len(set(drawn)) == 1
    assert drawn[0].startswith("hub_")


async def test_generations_are_never_given_twice(storage, make_node, database_url):
    node = await make_node()
    async with await Storage.open(database_url) as other:
        begun = [
            each.nodes.begin_session(node.id, node.public_key, now=NOW) for each in [storage, other] * 20
        ]
        given = await asyncio.gather(*begun)
    assert sorted(each.generation for each in given) == list(range(1, 41))


async def test_a_revoked_node_gets_no_generation(storage, make_node):
    node = await make_node()
    await storage.nodes.revoke(node.id, now=NOW)
    for name in (node.id, "node_none"):
        assert await storage.nodes.begin_session(name, node.public_key, now=NOW) is None


async def test_a_key_is_found_by_its_hash_with_its_policy(storage, organisation):
    issued = await issue_key(
        storage,
        organisation.id,
        name="app",
        now=NOW,
        fleet=Fleet.SHARED,
        regions=["eu"],
        minimum_trust=TrustClass.VERIFIED,
        models=["tiny"],
        expires_at=NOW + 10,
    )
    found = await storage.keys.by_hash(hash_secret(issued.secret))
    assert found == issued.key
    expected = Policy(organisation.id, Fleet.SHARED, frozenset({"eu"}), TrustClass.VERIFIED)
    assert found.policy == expected
    assert found.allows_model("tiny")
    assert not found.allows_model("other")
    assert found.is_active(NOW + 9)
    assert not found.is_active(NOW + 10)


async def test_a_new_key_is_for_own_nodes_only(storage, organisation):
    issued = await issue_key(storage, organisation.id, name="app", now=NOW)
    assert issued.key.policy == Policy(organisation.id, Fleet.OWN, frozenset(), TrustClass.COMMUNITY)


@pytest.mark.parametrize(
    ("field", "wish"),
    [("name", {"name": ""}), ("regions", {"regions": ["mars"]}), ("expires", {"expires_at": NOW})],
)
async def test_a_key_that_makes_no_sense_is_not_made(storage, organisation, field, wish):
    with pytest.raises(InvalidInput) as refused:
        await issue_key(storage, organisation.id, **{"name": "app", "now": NOW} | wish)
    assert refused.value.field == field
    assert await storage.keys.list() == []


async def test_the_secret_is_nowhere_in_the_database(storage, organisation, all_that_is_stored):
    issued = await issue_key(storage, organisation.id, name="app", now=NOW)
    found = await all_that_is_stored()
    assert issued.secret.encode() not in found
    assert issued.key.hash.encode() in found


@pytest.mark.parametrize(
    ("column", "damage"),
    [("regions", "[eu"), ("regions", '{"eu": 1}'), ("fleet", "everyone"), ("minimum_trust", "")],
)
async def test_a_damaged_key_refuses_instead_of_widening(storage, organisation, make_node, column, damage):
    node, tree = await make_node(), await storage.regions.tree()
    issued = await issue_key(storage, organisation.id, name="app", now=NOW, regions=["eu"])
    assert permits(issued.key.policy, node.facts(), tree)
    await execute(storage, f"UPDATE api_keys SET {column} = :damage", damage=damage)
    damaged = await storage.keys.get(issued.key.id)
    assert not permits(damaged.policy, node.facts(), tree)


async def test_a_damaged_model_list_allows_nothing(storage, organisation):
    issued = await issue_key(storage, organisation.id, name="app", now=NOW, models=["tiny"])
    await execute(storage, "UPDATE api_keys SET models = 'tiny'")
    assert not (await storage.keys.get(issued.key.id)).allows_model("tiny")


@pytest.mark.parametrize(
    ("column", "damage"), [("trust", "great"), ("sharing", "all"), ("shared_with", "org_b"), ("machine", "{")]
)
async def test_a_damaged_node_is_still_listed_and_serves_nobody_who_relies_on_it(
    storage, organisation, make_node, column, damage
):
    node, tree = await make_node(), await storage.regions.tree()
    await execute(storage, f"UPDATE nodes SET {column} = :damage", damage=damage)
    [damaged] = await storage.nodes.list(organisation.id)
    permitted = permits(Policy(organisation.id, Fleet.ANY), damaged.facts(), tree).permitted
    assert permitted is (column == "machine"), "what a machine says of itself is judged by nobody"
    assert damaged.id == node.id


async def test_placement_is_replaced_only_as_long_as_nobody_else_changed_it(storage, make_node):
    node = await make_node()
    sharing = Sharing(SharingKind.ORGANISATIONS, frozenset({"org_b"}))
    change = {"name": "new", "region": "eu", "region_confirmed": True, "trust": TrustClass.TRUSTED}
    placed = await storage.nodes.replace_placement(node, **change, sharing=sharing)
    assert (placed.name, placed.region, placed.trust, placed.sharing) == (
        "new",
        "eu",
        TrustClass.TRUSTED,
        sharing,
    )
    assert placed == await storage.nodes.get(node.id)
    assert await storage.nodes.replace_placement(node, **change, sharing=sharing) is None
    private = await storage.nodes.replace_placement(placed, **change, sharing=Sharing())
    assert (
        await storage.nodes.replace_placement(
            placed, **change | {"trust": TrustClass.VERIFIED}, sharing=sharing
        )
        is None
    )
    assert await storage.nodes.get(node.id) == private


async def test_revoking_twice_keeps_the_first_time(storage, make_node):
    node = await make_node()
    await storage.nodes.revoke(node.id, now=NOW)
    await storage.nodes.revoke(node.id, now=NOW + 5)
    assert (await storage.nodes.get(node.id)).revoked_at == NOW
    assert await storage.nodes.list() == []
    assert [each.id for each in await storage.nodes.list(include_revoked=True)] == [node.id]


async def test_a_drain_lasts_until_somebody_ends_it(storage, make_node, database_url):
    node = await make_node()
    assert not node.facts().draining
    assert (await storage.nodes.drain(node.id, now=NOW)).draining_since == NOW
    assert (await storage.nodes.drain(node.id, now=NOW + 5)).draining_since == NOW, "the first time stays"
    begun = await storage.nodes.begin_session(node.id, node.public_key, now=NOW + 9)
    assert begun.facts().draining, "a node that connects anew is on drain still"
    async with await Storage.open(database_url) as after_a_restart:
        assert (await after_a_restart.nodes.get(node.id)).facts().draining
    assert (await storage.nodes.resume(node.id)).draining_since is None
    assert not (await storage.nodes.resume(node.id)).facts().draining


async def test_a_drain_and_another_change_of_a_node_do_not_undo_each_other(storage, make_node):
    node = await make_node()
    await storage.nodes.drain(node.id, now=NOW)
    unseen = {"name": "b", "region": None, "region_confirmed": False, "trust": TrustClass.COMMUNITY}
    placed = await storage.nodes.replace_placement(node, **unseen, sharing=Sharing())
    assert (placed.name, placed.draining_since) == ("b", NOW)


async def test_who_is_gone_is_neither_drained_nor_resumed(storage, make_node):
    node = await make_node()
    await storage.nodes.revoke(node.id, now=NOW)
    before = await storage.settings.revision()
    for name in (node.id, "node_none"):
        with pytest.raises(NotFound):
            await storage.nodes.drain(name, now=NOW)
        with pytest.raises(NotFound):
            await storage.nodes.resume(name)
    assert await storage.settings.revision() == before


async def test_regions_cannot_form_a_cycle(storage):
    with pytest.raises(InvalidInput):
        await storage.regions.add("x", "y", "X")
    with pytest.raises(InvalidInput):
        await storage.regions.add("x", "x", "X")
    with pytest.raises(AlreadyExists):
        await storage.regions.add("eu", "eu-de", "Europe")


async def test_accounts_are_one_for_each_address_in_any_case(storage, organisation):
    made = await storage.accounts.create(
        organisation.id, email="Ada@Ours.example", password_hash="-", role=Role.MEMBER, now=NOW
    )
    assert await storage.accounts.by_email("ADA@ours.example") == made
    with pytest.raises(AlreadyExists):
        await storage.accounts.create(
            organisation.id, email="ada@ours.example", password_hash="-", role=Role.OWNER, now=NOW
        )
    with pytest.raises(NotFound):
        await storage.accounts.create(
            "org_none", email="eve@ours.example", password_hash="-", role=Role.OWNER, now=NOW
        )


async def test_portal_sessions_end_with_time_and_with_a_new_password(storage, people):
    account = await people.get(Role.MEMBER)
    await storage.sessions.create("a" * 64, account.id, csrf_token="t", expires_at=NOW + 10, now=NOW)
    await storage.sessions.create("b" * 64, account.id, csrf_token="t", expires_at=NOW + 99, now=NOW)
    assert await storage.sessions.get("a" * 64, now=NOW + 9) is not None
    assert await storage.sessions.get("a" * 64, now=NOW + 10) is None
    await storage.accounts.change_password(account.id, "other")
    assert await storage.sessions.get("b" * 64, now=NOW) is None


def record(request_id, key_id="key_1", organisation_id="org_1", at=NOW, **changes):
    values = {
        "model": "tiny",
        "prompt_tokens": 10,
        "cached_tokens": 4,
        "completion_tokens": 3,
        "ttft_ms": 12.5,
        "duration_ms": 80.0,
        "outcome": "ok",
    } | changes
    return UsageRecord(
        request_id, key_id, organisation_id, node_id="node_1", region="eu-de", created_at=at, **values
    )


async def test_a_record_given_twice_counts_once(storage):
    await storage.usage.add([record("req_1"), record("req_2")])
    await storage.usage.add([record("req_2", completion_tokens=99), record("req_3")])
    assert {each.request_id for each in await storage.usage.list()} == {"req_1", "req_2", "req_3"}
    assert await storage.usage.get("req_2") == record("req_2")
