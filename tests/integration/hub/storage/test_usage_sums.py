"""The sums of usage say what the records say: whatever comes twice, whoever writes it, since whenever."""

import asyncio
from collections import Counter

import pytest
from alembic import command
from alembic.config import Config
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from hub.storage import migrate
from hub.storage.engine import Database
from hub.storage.records import UsageRecord
from hub.storage.repositories import Storage
from hub.storage.rollups import By, Step

NOW = 1_700_000_000.0
HOUR, DAY = 3_600, 86_400
MIDNIGHT = NOW - NOW % DAY
COUNTS = ("requests", "prompt_tokens", "cached_tokens", "completion_tokens")


def record(request_id, at=NOW, **changes):
    values = {
        "key_id": "key_1",
        "organisation_id": "org_1",
        "node_id": "node_1",
        "region": "eu-de",
        "model": "tiny",
        "prompt_tokens": 10,
        "cached_tokens": 4,
        "completion_tokens": 3,
        "ttft_ms": 12.5,
        "duration_ms": 80.0,
        "outcome": "ok",
    } | changes
    return UsageRecord(request_id=request_id, created_at=at, **values)


def shown(sums):
    return [(each.start, each.group, *(getattr(each, name) for name in COUNTS)) for each in sums]


async def everything(storage, **question):
    """All sums of one organisation over all of the time of these tests."""
    return await storage.usage.sums("org_1", **({"since": 0, "until": MIDNIGHT + 100 * DAY} | question))


RECORDS = st.builds(
    record,
    request_id=st.integers(0, 12).map("req_{}".format),
    at=st.integers(-3 * DAY, 9 * DAY).map(lambda offset: MIDNIGHT + offset),
    key_id=st.sampled_from(["key_1", "key_2"]),
    organisation_id=st.sampled_from(["org_1", "org_2"]),
    node_id=st.sampled_from(["node_1", "node_2"]),
    region=st.sampled_from(["eu-de", "us", None]),
    model=st.sampled_from(["tiny", "big"]),
    prompt_tokens=st.integers(0, 2**31 - 1),
    completion_tokens=st.integers(0, 2**31 - 1),
    outcome=st.sampled_from(["ok", "cancelled"]),
)
VALUES = {
    By.KEY: lambda each: each.key_id,
    By.MODEL: lambda each: each.model,
    By.REGION: lambda each: each.region or "",
    By.OUTCOME: lambda each: each.outcome,
    By.NODE: lambda each: each.node_id,
}


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(batches=st.lists(st.lists(RECORDS, max_size=8), max_size=5), data=st.data())
def test_sums_are_those_of_the_records_however_often_each_was_given(storage_loop, batches, data):
    """Replayed segments, doubles within one batch, batches that were partly stored before."""
    by = data.draw(
        st.sampled_from(
            [
                *((), (By.KEY,), (By.OUTCOME,), (By.REGION,), (By.NODE,), (By.REGION, By.KEY)),
                *((By.MODEL, By.OUTCOME), (By.NODE, By.REGION), (By.NODE, By.KEY)),
            ]
        )
    )
    step = data.draw(st.sampled_from([None, Step.HOUR, Step.DAY]))
    since = MIDNIGHT + data.draw(st.sampled_from([-3 * DAY, -HOUR, 0, HOUR]))
    until = since + data.draw(st.sampled_from([HOUR, DAY, 3 * DAY, 9 * DAY]))
    key_id = data.draw(st.sampled_from([None, "key_1"]))

    async def check(storage):
        for batch in batches:
            await storage.usage.add(batch)
        kept = await storage.usage.list(limit=1_000)
        width = step.width_s if step else HOUR
        first, last = -(-since // width) * width, -(-until // width) * width
        expected = Counter()
        for each in kept:
            if each.organisation_id != "org_1" or key_id not in (None, each.key_id):
                continue
            if first <= each.created_at < last:
                start = int(each.created_at // width) * width if step else None
                group = tuple(VALUES[one](each) for one in by)
                for name, value in zip(
                    COUNTS, (1, *(getattr(each, name) for name in COUNTS[1:])), strict=True
                ):
                    expected[start, group, name] += value
        found = await storage.usage.sums("org_1", since=since, until=until, step=step, by=by, key_id=key_id)
        assert Counter({(e.start, e.group, n): getattr(e, n) for e in found for n in COUNTS}) == expected
        assert shown(found) == sorted(shown(found))

    storage_loop(check)


@pytest.fixture
def storage_loop(storage_urls):
    """Runs a check on an empty database each time."""

    def run(check):
        async def opened():
            async with await Storage.open(next(storage_urls)) as storage:
                await storage.migrate()
                await check(storage)

        asyncio.run(opened())

    return run


@pytest.fixture
def storage_urls(tmp_path):
    def urls():
        number = 0
        while True:
            number += 1
            yield f"sqlite+aiosqlite:///{tmp_path}/sums_{number}.db"

    return urls()


async def test_what_is_given_again_counts_once_in_every_sum(storage):
    await storage.usage.add([record("a"), record("b"), record("a")])
    await storage.usage.add([record("b"), record("c", node_id="node_2", region=None)])
    [whole] = await everything(storage)
    assert (whole.start, whole.group, whole.requests, whole.tokens) == (None, (), 3, 39)
    by_node = await everything(storage, by=(By.NODE, By.REGION), step=Step.DAY)
    assert [(each.group, each.requests) for each in by_node] == [
        (("node_1", "eu-de"), 2),
        (("node_2", ""), 1),
    ]


async def test_a_batch_that_fails_leaves_neither_rows_nor_sums(storage):
    with pytest.raises((ArithmeticError, DBAPIError)):
        await storage.usage.add([record("a"), record("b", at=1e300)])
    assert await storage.usage.list() == []
    assert await everything(storage) == []
    await storage.usage.add([record("a")])
    assert [each.requests for each in await everything(storage)] == [1]


async def test_two_writers_of_the_same_sums_lose_nothing(storage):
    async def write(number):
        batch = [
            record(f"req_{number}_{each}", key_id=f"key_{(each + number) % 3}", at=NOW + each * HOUR)
            for each in range(20)
        ]
        await storage.usage.add(batch)
        await storage.usage.add(batch)

    await asyncio.gather(*(write(number) for number in range(6)))
    [whole] = await everything(storage)
    assert whole.requests == 120


async def test_sums_are_of_whole_steps_of_one_organisation_and_one_key(storage):
    await storage.usage.add(
        [
            record("a", at=MIDNIGHT),
            record("b", at=MIDNIGHT + DAY - 1, key_id="key_2"),
            record("c", at=MIDNIGHT - 1),
            record("d", at=MIDNIGHT + DAY),
            record("e", at=MIDNIGHT, organisation_id="org_2"),
        ]
    )
    day = {"since": MIDNIGHT, "until": MIDNIGHT + DAY}
    assert [each.requests for each in await everything(storage, **day)] == [2]
    assert [each.requests for each in await everything(storage, **day, key_id="key_2")] == [1]
    hours = await everything(storage, **day, step=Step.HOUR)
    assert [each.start for each in hours] == [MIDNIGHT, MIDNIGHT + 23 * HOUR]
    last_hours = await everything(storage, since=MIDNIGHT - HOUR, until=MIDNIGHT + HOUR)
    assert [each.requests for each in last_hours] == [2]


async def test_of_many_groups_those_that_used_most_come_first(storage):
    records = [record(f"req_{number}", model=f"m{number}", completion_tokens=number) for number in range(9)]
    await storage.usage.add(records)
    found = await everything(storage, by=(By.MODEL,), most=3)
    assert [each.group for each in found] == [("m8",), ("m7",), ("m6",)]
    found = await everything(storage, by=(By.MODEL,), most=3, step=Step.DAY)
    assert [each.group for each in found] == [("m0",), ("m1",), ("m2",)]


async def test_a_month_is_read_from_few_rows(storage):
    """Whole weeks within, days and hours at the edges: each record is in one of them."""
    records = [record(f"req_{hour}", at=MIDNIGHT + hour * HOUR) for hour in range(24 * 31)]
    await storage.usage.add(records)
    for since, until in ((0, 24 * 31), (5, 24 * 30 + 7), (30, 31), (23, 25), (24 * 3, 24 * 3)):
        span = {"since": MIDNIGHT + since * HOUR, "until": MIDNIGHT + until * HOUR}
        found = await everything(storage, **span)
        assert sum(each.requests for each in found) == until - since, span


async def test_tokens_of_a_month_are_by_key_and_by_organisation(storage):
    ours, theirs = [(await storage.organisations.create(name, now=NOW)).id for name in ("Ours", "Theirs")]
    await storage.usage.add(
        [
            record("a", organisation_id=ours),
            record("b", organisation_id=ours, key_id="key_2"),
            record("c", organisation_id=theirs, key_id="key_3"),
            record("d", organisation_id=ours, at=MIDNIGHT - DAY),
            record("e", organisation_id="org_gone"),
        ]
    )
    found = await storage.usage.tokens_by_holder(since=MIDNIGHT, until=MIDNIGHT + DAY)
    assert found == {"key_1": 13, "key_2": 13, "key_3": 13, ours: 26, theirs: 13}


class TestMigration:
    """Rows from before there were sums."""

    @pytest.fixture
    async def before(self, database_url):
        """A database of the version before, with usage in it."""
        async with await Storage.open(database_url) as opened:
            async with Database(opened._engine).note() as connection:
                await connection.run_sync(to_revision, "0002")
                rows = [
                    {"id": f"req_{number}", "at": at, "day": int(at // DAY), "region": region}
                    for number, (at, region) in enumerate(
                        [(MIDNIGHT, "eu-de"), (MIDNIGHT + 0.5, None), (MIDNIGHT - 0.5, "us"), (NOW, "us")]
                    )
                ]
                await connection.execute(text(INSERT), rows)
            yield opened

    async def test_they_are_in_the_sums_afterwards(self, before):
        await before.migrate()
        assert len(await before.usage.list()) == 4
        kept = await before.usage.list()
        async with await Storage.open("sqlite+aiosqlite:///:memory:") as fresh:
            await fresh.migrate()
            await fresh.usage.add(kept)
            for step in (None, Step.HOUR, Step.DAY):
                for by in ((By.KEY, By.MODEL, By.REGION, By.OUTCOME), (By.NODE, By.REGION)):
                    question = {"step": step, "by": by}
                    assert await everything(before, **question) == await everything(fresh, **question)
        await before.usage.add([record("req_0"), record("req_9")])
        assert [each.requests for each in await everything(before)] == [5]

    async def test_it_can_be_undone(self, before):
        await before.migrate()
        async with Database(before._engine).note() as connection:
            await connection.run_sync(to_revision, "0002", up=False)
            days = list(await connection.scalars(text("SELECT day FROM usage_records ORDER BY request_id")))
        assert days == [int(MIDNIGHT // DAY), int(MIDNIGHT // DAY), int(MIDNIGHT // DAY) - 1, int(NOW // DAY)]
        await before.migrate()
        assert [each.requests for each in await everything(before)] == [4]


INSERT = """
    INSERT INTO usage_records (request_id, key_id, organisation_id, node_id, region, model, prompt_tokens,
        cached_tokens, completion_tokens, ttft_ms, duration_ms, outcome, created_at, day)
    VALUES (:id, 'key_1', 'org_1', 'node_1', :region, 'tiny', 2000000000, 4, 3, NULL, 80, 'ok', :at, :day)
"""


def to_revision(connection, revision, *, up=True):
    config = Config()
    config.set_main_option("script_location", str(migrate._MIGRATIONS))
    config.attributes["connection"] = connection
    (command.upgrade if up else command.downgrade)(config, revision)
