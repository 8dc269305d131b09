"""Several processes' worth of connections at once: no lost count, no half-seen change, no deadlock."""

import asyncio
import secrets
from collections import Counter
from contextlib import AsyncExitStack

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from hub.acting import Actor, acting_as, current_actor
from hub.audit import ChainCheck
from hub.errors import AlreadyExists, NotAllowed, StorageUnavailable
from hub.keys import hash_secret, issue_key, rotate_key
from hub.storage import engine
from hub.storage.chain import Act
from hub.storage.records import Role, UsageRecord
from hub.storage.repositories import Storage

NOW = 1_700_000_000.0
HUBS = 4


@pytest.fixture
async def hubs(storage, database_url):
    """Storage of several Hubs on one database."""
    async with AsyncExitStack() as stack:
        yield [await stack.enter_async_context(await Storage.open(database_url)) for _ in range(HUBS)]


@pytest.fixture
async def postgres_hubs(postgres):
    """Three of them on a PostgreSQL: SQLite has one lock for all writers, and no order of them."""
    url = postgres.create(name := f"hub_{secrets.token_hex(6)}")
    async with AsyncExitStack() as stack:
        hubs = [await stack.enter_async_context(await Storage.open(url)) for _ in range(3)]
        await hubs[0].migrate()
        yield hubs
    postgres.drop(name)


def used(number, key_id):
    return UsageRecord(
        f"req_{number:05d}", key_id, "org_1", "node_1", None, "tiny", 1, 0, 1, None, 1.0, "ok", NOW + number
    )


async def test_every_change_counts_however_many_come_at_once(hubs):
    before = await hubs[0].settings.revision()
    changes = [
        each.organisations.create(f"{name}-{number}", now=NOW)
        for number in range(12)
        for name, each in enumerate(hubs)
    ]
    await asyncio.gather(*changes)
    assert await hubs[0].settings.revision() == before + 12 * HUBS


async def test_who_sees_a_revision_sees_all_that_was_changed_up_to_it(hubs):
    """The watch reads the counter first, then what changed: nothing may appear later than its number."""
    reader, *writers = hubs
    base = await reader.settings.revision() - len(await reader.organisations.list())
    stop = asyncio.Event()

    async def write(name, storage):
        number = 0
        while not stop.is_set():
            number += 1
            await storage.organisations.create(f"{name}-{number}", now=NOW)

    writing = [asyncio.create_task(write(name, each)) for name, each in enumerate(writers)]
    looks = []
    try:
        for _ in range(60):
            revision = await reader.settings.revision()
            looks.append((revision - base, len(await reader.organisations.list())))
    finally:
        stop.set()
        await asyncio.gather(*writing)
    assert all(seen >= counted for counted, seen in looks)
    assert looks[-1][0] > looks[0][0]


async def test_of_many_that_add_one_name_one_succeeds_and_the_others_are_told(hubs):
    for adding in (
        [each.regions.add("us", None, "US") for each in hubs * 3],
        [each.organisations.create("Same", now=NOW) for each in hubs * 3],
    ):
        results = await asyncio.gather(*adding, return_exceptions=True)
        refused = [result for result in results if isinstance(result, Exception)]
        assert len(refused) == len(results) - 1
        assert all(isinstance(result, AlreadyExists) for result in refused)


async def test_usage_of_the_same_keys_from_many_hubs_waits_for_nobody_for_ever(hubs, organisation):
    """Each Hub stores the keys' records in another order: rows locked crosswise would be a deadlock."""
    keys = [await issue_key(hubs[0], organisation.id, name=f"k{n}", now=NOW) for n in range(6)]

    async def store(place, storage):
        order = keys if place % 2 else keys[::-1]
        for round_ in range(15):
            base = (place * 15 + round_) * len(keys)
            await storage.usage.add([used(base + n, each.key.id) for n, each in enumerate(order)])
            await storage.keys.mark_used({hash_secret(each.secret): NOW + base for each in order})

    await asyncio.gather(*(store(place, each) for place, each in enumerate(hubs)))
    count = HUBS * 15 * len(keys)
    assert len(await hubs[0].usage.list(limit=10_000)) == count
    (total,) = await hubs[0].usage.sums("org_1", since=0, until=NOW + 2 * count)
    assert total.requests == count
    assert {key.last_used_at for key in await hubs[0].keys.list()} == {NOW + count - len(keys)}


async def crossing(storage, organisation_id):
    """Two keys by their ids, the higher written first, and a secret of each that hash the other way round."""
    while True:
        high, low = [await issue_key(storage, organisation_id, name="k", now=NOW) for _ in range(2)]
        _, rotated = [await rotate_key(storage, each.key, now=NOW, overlap_s=60) for each in (high, low)]
        hashes = [hash_secret(rotated.secret), hash_secret(high.secret)]
        if low.key.id < high.key.id and hashes[0] > hashes[1]:
            return low.key.id, high.key.id, dict.fromkeys(hashes, NOW + 5)


@pytest.mark.parametrize("what", ["use is noted", "the organisation is erased"])
async def test_whoever_waits_for_a_key_holds_none_that_comes_after(postgres_hubs, what):
    """Else two Hubs that saw other secrets of two keys in a rotation's overlap would lock them crosswise."""
    one, other, looking = postgres_hubs
    organisation = await one.organisations.create("Ours", now=NOW)
    low, high, used_at = await crossing(one, organisation.id)
    hold = text("SELECT id FROM api_keys WHERE id = :id FOR UPDATE NOWAIT")
    waiting = text("SELECT COUNT(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'")
    async with other.database.note() as connection:
        await connection.execute(hold, {"id": low})
        acting = asyncio.create_task(
            one.keys.mark_used(used_at) if "use" in what else one.erasure.organisation(organisation)
        )
        async with asyncio.timeout(10):
            while True:
                async with looking.database.note() as asking:
                    if await asking.scalar(waiting):
                        break
                await asyncio.sleep(0.01)
        async with looking.database.note() as asking:
            await asking.execute(hold, {"id": high})
    await acting
    left = {key.last_used_at for key in await one.keys.list() if key.id in (low, high)}
    assert left == ({NOW + 5} if "use" in what else set())


async def test_acts_of_many_hubs_are_one_chain_while_people_are_erased(hubs, organisation):
    """Everybody comes from one of a few addresses, which are forgotten again and again under their feet."""
    people = [
        await hubs[0].accounts.create(
            organisation.id, email=f"p{n}@ours.example", password_hash="-", role=Role.MEMBER, now=NOW
        )
        for n in range(6)
    ]

    async def act(place, storage):
        for round_ in range(8):
            with acting_as(Actor(people[place].id, organisation.id, address=f"192.0.2.{round_ % 2}")):
                await issue_key(storage, organisation.id, name=f"{place}-{round_}", now=NOW)
                acts = [
                    Act(action="request.refused", actor=current_actor(), subject=f"key_{each}", at=NOW)
                    for each in range(3)
                ]
                await storage.audit.add(f"batch-{round_ // 2}", acts)

    async def erase(storage):
        for each in people:
            await storage.erasure.account(each)
            await storage.erasure.address("192.0.2.1")

    await asyncio.gather(*(act(place, each) for place, each in enumerate(hubs)), erase(hubs[0]))
    check, actions = ChainCheck((), await hubs[0].audit.head()), Counter()
    async for event in hubs[1].audit.chain():
        check.take(event)
        actions[event.action] += 1
    assert check.finish((await hubs[0].audit.head())[0]) == []
    assert (actions["key.created"], actions["account.erased"]) == (8 * HUBS, len(people))
    assert actions["request.refused"] == 4 * 3, "a batch that several give counts once"


async def test_operators_who_erase_each_other_at_once_leave_one(hubs, organisation):
    operators = [
        await hubs[0].accounts.create(
            organisation.id, email=f"{n}@ours.example", password_hash="-", role=Role.OPERATOR, now=NOW
        )
        for n in range(HUBS)
    ]
    results = await asyncio.gather(
        *(storage.erasure.account(each) for storage, each in zip(hubs, operators, strict=True)),
        return_exceptions=True,
    )
    assert [type(result) for result in results if result is not None] == [NotAllowed]
    assert len(await hubs[0].accounts.list()) == 1


async def test_the_same_records_from_many_hubs_count_once(hubs):
    records = [used(number, "key_1") for number in range(100)]
    await asyncio.gather(*(each.usage.add(records) for each in hubs * 3))
    assert len(await hubs[0].usage.list(limit=10_000)) == 100


# --- a server that does not answer


@pytest.fixture
async def stored_there(own_postgres):
    url = own_postgres.create("hub")
    async with await Storage.open(url) as patient:
        await patient.migrate()
    async with await Storage.open(url, answer_s=1.0) as storage:
        yield storage
        own_postgres.thaw()


async def test_a_server_that_hangs_hangs_nothing(stored_there, own_postgres):
    """More calls at once than there are connections: each ends in its time, with our own error."""
    await stored_there.settings.revision()
    own_postgres.freeze()
    asked = [stored_there.settings.revision() for _ in range(20)]
    asked += [stored_there.organisations.create(f"o{n}", now=NOW) for n in range(20)]
    async with asyncio.timeout(20):
        results = await asyncio.gather(*asked, return_exceptions=True)
    assert all(isinstance(result, StorageUnavailable) for result in results)
    own_postgres.thaw()
    async with asyncio.timeout(20):
        while await _fails(stored_there.settings.revision()):
            await asyncio.sleep(0.05)
    assert isinstance(await stored_there.organisations.list(), list)


async def _fails(call):
    try:
        await call
    except StorageUnavailable:
        return True
    return False


async def test_a_server_that_comes_back_is_used_again_by_the_first_who_asks(stored_there, own_postgres):
    await asyncio.gather(*(stored_there.settings.revision() for _ in range(5)))
    own_postgres.stop()
    assert await _fails(stored_there.settings.revision())
    own_postgres.start()
    assert not await _fails(stored_there.settings.revision())


async def test_a_lock_that_somebody_keeps_is_given_up(stored_there, own_postgres):
    async with await Storage.open(own_postgres.url("hub")) as other, other.database.note() as connection:
        await connection.execute(text("LOCK TABLE organisations IN ACCESS EXCLUSIVE MODE"))
        assert await _fails(stored_there.organisations.list())
    assert not await _fails(stored_there.organisations.list())


async def test_no_error_of_the_database_repeats_what_it_was_given(storage):
    """Errors reach logs: a value in one would be somebody's address, or worse."""
    query, values = text("SELECT nothing FROM nowhere WHERE x = :secret"), {"secret": "s3cret"}
    async with storage.database.engine.connect() as connection:
        with pytest.raises(DBAPIError) as failed:
            await connection.execute(query, values)
    assert "s3cret" not in str(failed.value)
    with pytest.raises(StorageUnavailable) as refused:
        async with storage.database.read() as connection:
            await connection.execute(query, values)
    assert "s3cret" not in str(refused.value)


def test_a_url_is_shown_without_its_password():
    url = "postgresql://u:s3cret@h/d?password=s3cret&host=x"
    assert engine.shown_url(url) == "postgresql://u:***@h/d?host=x"
    assert "s3cret" not in engine.shown_url("no url at all, s3cret")
