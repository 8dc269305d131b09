"""The month's use as the Hub knows it: stored, recorded since, by whomever, and each once."""

import asyncio
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hub.budgets import Budgets, MonthlyTokens
from hub.errors import StorageUnavailable
from hub.quotas import month_of, month_start
from hub.storage.records import UsageRecord

NOW = 1_700_000_000.0
MONTH = month_of(NOW)


def record(tokens, key="key_a", organisation="org_a", at=NOW):
    return UsageRecord("req", key, organisation, "n", None, "m", tokens - 1, 0, 1, None, 1.0, "ok", at)


class Storage:
    """What all Hub processes have stored; one that reads it stores what it recorded first."""

    def __init__(self):
        self.sums = Counter()
        self.waiting = Counter()
        self.fails = False
        self.between = lambda: None

    def record(self, months, tokens, key="key_a"):
        months.add(record(tokens, key))
        self.waiting.update({key: tokens, "org_a": tokens})

    async def tokens(self, mark, *, since, until):
        assert (since, until) == (month_start(MONTH), month_start(MONTH + 1))
        if self.fails:
            raise StorageUnavailable("away")
        marked = mark()
        self.sums.update(self.waiting)
        self.waiting.clear()
        self.between()
        return marked, dict(self.sums)


OPS = st.lists(
    st.one_of(
        st.tuples(st.just("record"), st.sampled_from(["key_a", "key_b"]), st.integers(1, 1_000)),
        st.tuples(st.just("other"), st.sampled_from(["key_a", "key_c"]), st.integers(1, 1_000)),
        st.tuples(st.just("refresh"), st.booleans(), st.integers(0, 1_000)),
    ),
    max_size=40,
)


@given(OPS)
def test_every_record_counts_once_whoever_made_it_and_whenever_storage_is_read(ops):
    async def run():
        storage = Storage()
        budgets = Budgets(storage, lambda: NOW)
        ours, known_of_others, others = Counter(), Counter(), Counter()
        for kind, what, amount in ops:
            if kind == "record":
                storage.record(budgets.tokens, amount, what)
                ours.update({what: amount, "org_a": amount})
            elif kind == "other":
                storage.sums.update({what: amount, "org_a": amount})
                others.update({what: amount, "org_a": amount})
            else:
                storage.fails = what

                def meanwhile(amount=amount):
                    storage.record(budgets.tokens, amount)
                    ours.update({"key_a": amount, "org_a": amount})

                storage.between = meanwhile if amount else lambda: None
                try:
                    await budgets.refresh()
                    known_of_others = Counter(others)
                except StorageUnavailable:
                    assert what
            for holder in ("key_a", "key_b", "key_c", "org_a"):
                assert budgets.tokens.used(holder, NOW) == ours[holder] + known_of_others[holder]

    asyncio.run(run())


def test_a_month_begins_with_nothing_and_a_clock_set_back_finds_the_one_before():
    months = MonthlyTokens()
    months.add(record(10))
    later = month_start(MONTH + 1)
    assert months.used("key_a", later) == 0
    months.add(record(5, at=later))
    months.replace(MONTH + 1, {"key_a": 5, "org_a": 5}, months.mark())
    assert (months.used("key_a", later), months.used("key_a", NOW)) == (5, 10)
    months.replace(MONTH + 2, {}, months.mark())
    assert (months.used("key_a", later), months.used("key_a", NOW)) == (5, 0)


@given(st.lists(st.tuples(st.floats(0, 4e9), st.integers(1, 10**6)), max_size=20))
def test_each_record_counts_in_the_month_in_which_it_was_made(made):
    months = MonthlyTokens()
    for at, tokens in made:
        months.add(record(tokens, at=at))
    for at, _ in made:
        same = [tokens for other, tokens in made if month_of(other) == month_of(at)]
        assert months.used("key_a", at) == months.used("org_a", at) == sum(same)
        assert months.month(at) == month_of(at)


async def test_a_refresh_that_fails_is_said_and_tried_again(monkeypatch, caplog):
    monkeypatch.setattr("hub.budgets.REFRESH_EVERY_S", 0)
    storage = Storage()
    storage.fails, storage.sums = True, Counter({"key_a": 7})
    budgets = Budgets(storage, lambda: NOW)
    task = asyncio.create_task(budgets.run())
    while not caplog.records:
        await asyncio.sleep(0)
    assert caplog.records[0].event == "budgets.failed"
    storage.fails = False
    while not budgets.tokens.used("key_a", NOW):
        await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
