"""What is erased is gone from every file of the database, and the audit log still holds together."""

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from sqlalchemy import text

from hub.acting import Actor, acting_as
from hub.audit import ChainCheck
from hub.config import HubConfig
from hub.errors import NotAllowed, NotFound
from hub.keys import issue_key
from hub.retention import DAY_S, Retention
from hub.sealing import Sealer
from hub.storage.records import Role, UsageRecord
from hub.storage.repositories import Storage
from tests.integration.hub.storage.filling import everything

NOW = 1_700_000_000.0
SECRET = ("anna@ours.example", "192.0.2.77", "annas-laptop", "key of anna")


def usage(request_id, organisation_id, created_at=NOW):
    return UsageRecord(
        request_id, "key_1", organisation_id, "node_1", None, "tiny", 1, 0, 1, None, 1.0, "ok", created_at
    )


async def whole(storage):
    check = ChainCheck((), await storage.audit.head())
    async for event in storage.audit.chain():
        check.take(event)
    return check.finish((await storage.audit.head())[0]) == []


async def kept(storage, tmp_path):
    """Every row of every table, and all of SQLite's files, what is only marked as free there among it."""
    await storage.erasure.purge()
    async with storage.database.read() as connection:
        rows = repr(await everything(connection))
    return rows + "".join(path.read_bytes().decode("latin-1") for path in tmp_path.glob("hub.db*"))


@pytest.fixture
async def anna(storage, organisation):
    account = await storage.accounts.create(
        organisation.id, email=SECRET[0], password_hash="-", role=Role.OWNER, now=NOW
    )
    with acting_as(Actor(account.id, organisation.id, address=SECRET[1])):
        await storage.sessions.create("s" * 64, account.id, csrf_token="-", expires_at=NOW + 9, now=NOW)
        await issue_key(storage, organisation.id, name=SECRET[3], now=NOW)
    return account


async def test_an_account_goes_with_what_the_log_knows_of_the_person(storage, anna, tmp_path):
    assert SECRET[0] in await kept(storage, tmp_path)
    assert SECRET[1] in await kept(storage, tmp_path)
    await storage.erasure.account(anna)
    left = await kept(storage, tmp_path)
    assert SECRET[0] not in left
    assert SECRET[1] not in left
    assert anna.id in left, "the log goes on saying that it was one and the same"
    assert await storage.sessions.get("s" * 64, now=NOW) is None
    assert await whole(storage)
    with pytest.raises(NotFound):
        await storage.erasure.account(anna)


async def test_after_an_erasure_the_same_address_is_another_pseudonym(storage, organisation, anna):
    async def seen():
        with acting_as(Actor("acct_2", organisation.id, address=SECRET[1])):
            await storage.regions.add("us", None, "US")
        return [event async for event in storage.audit.chain()][-1].facts()["address"]

    before = [event.facts()["address"] async for event in storage.audit.chain() if "address" in event.facts()]
    assert await storage.erasure.address(SECRET[1])
    assert not await storage.erasure.address(SECRET[1])
    assert await storage.audit.names(before) == {}
    assert await seen() not in before
    assert await whole(storage)


async def test_the_only_operator_stays(storage, people):
    operator = await people.get(Role.OPERATOR)
    with pytest.raises(NotAllowed, match="only operator"):
        await storage.erasure.account(operator)
    other = await storage.accounts.create(
        operator.organisation_id, email="b@ours.example", password_hash="-", role=Role.OPERATOR, now=NOW
    )
    await storage.erasure.account(operator)
    assert [account.id for account in await storage.accounts.list()] == [other.id]


async def test_a_node_goes_with_its_name_and_its_machine(storage, make_node, tmp_path):
    node = await make_node(name=SECRET[2], machine={"hostname": SECRET[2]})
    await storage.erasure.node(node)
    left = await kept(storage, tmp_path)
    assert SECRET[2] not in left
    assert await storage.nodes.get(node.id) is None
    assert await whole(storage)


async def test_an_organisation_goes_with_all_that_is_its_own(
    storage, organisation, anna, make_node, enrollment, tmp_path
):
    other = await storage.organisations.create("Other", now=NOW)
    theirs = (await issue_key(storage, other.id, name="theirs", now=NOW)).key
    grant = await enrollment.service.start_device("A" * 43, SECRET[2], {}, SECRET[1])
    await enrollment.service.approve(grant.user_code, anna, name=SECRET[2], region=None)
    await enrollment.service.create_join_token(organisation.id, region=None)
    await make_node(name=SECRET[2])
    await storage.usage.add([usage("req_1", organisation.id), usage("req_2", other.id)])
    gone = await storage.erasure.organisation(organisation)
    assert {
        name: gone[name] for name in ("accounts", "api_keys", "nodes", "join_tokens", "usage_records")
    } == {
        "accounts": 1,
        "api_keys": 1,
        "nodes": 2,
        "join_tokens": 1,
        "usage_records": 1,
    }
    left = await kept(storage, tmp_path)
    for secret in SECRET:
        assert secret not in left, secret
    assert [each.id for each in await storage.organisations.list()] == [other.id]
    assert await storage.keys.get(theirs.id) == theirs
    assert [record.request_id for record in await storage.usage.list()] == ["req_2"]
    assert await whole(storage)


async def test_the_operators_own_organisation_stays(storage, organisation, people):
    await people.get(Role.OPERATOR)
    with pytest.raises(NotAllowed, match="operator"):
        await storage.erasure.organisation(organisation)
    assert await storage.organisations.get(organisation.id) == organisation


# --- by themselves


@pytest.fixture
def retention(storage, clock, tmp_path):
    def make(**settings):
        config = HubConfig(data_dir=tmp_path, **settings)
        return Retention(storage, Sealer(Ed25519PrivateKey.generate(), "hub_1", clock), config, clock)

    return make


async def test_by_default_usage_and_events_are_kept(storage, organisation, retention, clock):
    await storage.usage.add([usage("req_1", organisation.id, created_at=1.0)])
    before = [event async for event in storage.audit.chain()]
    clock.now = NOW + 10_000 * DAY_S
    await retention().look()
    assert len(await storage.usage.list()) == 1
    assert [event async for event in storage.audit.chain()] == before


async def test_usage_goes_when_its_time_is_up(storage, organisation, retention, clock, monkeypatch):
    monkeypatch.setattr("hub.storage.erasure._CHUNK", 3)
    ages = [NOW - days * DAY_S for days in range(10)]
    await storage.usage.add([usage(f"req_{number}", organisation.id, at) for number, at in enumerate(ages)])
    await retention(usage_retention_days=2).look()
    assert [record.request_id for record in await storage.usage.list()] == ["req_0", "req_1", "req_2"]


async def test_sessions_and_enrollments_that_are_over_go(storage, people, enrollment, retention, clock):
    owner = await people.get(Role.OWNER)
    await storage.sessions.create("s" * 64, owner.id, csrf_token="-", expires_at=NOW + 9, now=NOW)
    await enrollment.service.start_device("A" * 43, "attic", {}, "192.0.2.1")
    await retention().look()
    assert await rows(storage) == (1, 1)
    clock.now = NOW + 2 * 3600
    await retention().look()
    assert await rows(storage) == (0, 0)


async def rows(storage):
    async with storage._engine.connect() as connection:
        return tuple(
            [
                await connection.scalar(text(f"SELECT count(*) FROM {table}"))
                for table in ("portal_sessions", "device_enrollments")
            ]
        )


async def test_events_are_pruned_once_a_day_with_what_their_pseudonyms_stand_for(
    tmp_path, clock, database_url
):
    config = HubConfig(data_dir=tmp_path, audit_retention_days=30)
    async with await Storage.open(database_url, clock) as storage:
        await storage.migrate()
        keeping = Retention(storage, Sealer(Ed25519PrivateKey.generate(), "hub_1", clock), config, clock)
        with acting_as(Actor("acct_1", address=SECRET[1])):
            await storage.regions.add("us", None, "US")
        clock.now = NOW + 29 * DAY_S
        await keeping.look()
        assert (await storage.audit.head())[0] == 2
        clock.now = NOW + 32 * DAY_S
        for _ in range(3):
            clock.now += 60
            await keeping.look()
        left = [event async for event in storage.audit.chain()]
        assert [event.action for event in left] == ["audit.pruned"]
        assert SECRET[1] not in await kept(storage, tmp_path)
