"""Usage as it is drawn: nothing is lost on the way to the picture, and every picture fits its frame."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hub.portal.charts import (
    MINIMUM_BAR,
    SPANS,
    Sums,
    bars,
    budget_view,
    day_start,
    next_month_text,
    shares,
    step_text,
    sums,
)
from hub.storage.records import UsageSum
from hub.storage.rollups import Step

NOW = 1_700_000_000.0
DAY = 86_400
MONTH = SPANS[2]
FOUND = st.builds(
    UsageSum,
    st.sampled_from(MONTH.starts(NOW)),
    st.tuples(st.sampled_from(["ok", "cancelled", "node_lost"])),
    st.integers(0, 10**6),
    st.integers(0, 10**12),
    st.integers(0, 10**12),
    st.integers(0, 10**12),
)


@given(st.lists(FOUND, max_size=30))
def test_bars_lose_nothing_and_stay_in_their_frame(found):
    together = sums(found)
    drawn = bars(found, MONTH.starts(NOW), Step.DAY)
    assert [bar.start for bar in drawn] == MONTH.starts(NOW)
    assert sum(bar.sums.requests for bar in drawn) == together.requests
    assert sum(bar.sums.tokens for bar in drawn) == together.tokens
    highest = max(bar.sums.tokens for bar in drawn)
    for bar in drawn:
        assert MINIMUM_BAR <= bar.height <= 100
        assert 0 <= bar.prompt_height <= max(bar.height, 0)
        assert (bar.height == 100) is (bar.sums.tokens == highest > 0)


def test_what_lies_outside_is_not_drawn():
    assert bars([UsageSum(0, ("ok",), 1, 5, 0, 5)], [DAY], Step.DAY)[0].sums == Sums()
    assert bars([], [], Step.DAY) == []


@given(st.lists(st.builds(UsageSum, st.none(), st.tuples(st.text(max_size=3)), *[st.integers(0, 99)] * 4)))
def test_shares_are_in_order_and_of_the_most(found):
    drawn = shares(found, {})
    assert [share.sums.tokens for share in drawn] == sorted((each.tokens for each in found), reverse=True)
    assert all(0 <= share.width <= 100 for share in drawn)


def test_a_group_goes_by_its_name_its_id_or_none():
    found = [
        UsageSum(None, (group,), 1, 3 - place, 0, 0) for place, group in enumerate(("key_1", "key_2", ""))
    ]
    assert [share.name for share in shares(found, {"key_1": "app"})] == ["app", "key_2", "none"]


@pytest.mark.parametrize(
    ("used", "percent", "tone"),
    [(0, 0, "good"), (79, 79, "good"), (80, 80, "warn"), (100, 100, "bad"), (250, 100, "bad")],
)
def test_a_budget_fills(used, percent, tone):
    view = budget_view("app", used, 100)
    assert (view.percent, view.tone) == (percent, tone)
    assert budget_view("unreadable", 0, 0).percent == 100


@given(st.floats(DAY * 400, 4e9), st.sampled_from(SPANS))
def test_a_span_ends_with_the_present_step(now, span):
    starts = span.starts(now)
    assert len(starts) == span.count
    assert starts == sorted(set(starts))
    assert starts[-1] <= now < starts[-1] + span.step.width_s
    assert all(start % span.step.width_s == 0 for start in starts)
    assert len({step_text(start, span.step) for start in starts}) == span.count


@given(st.floats(0, 4e9))
def test_a_day_begins_at_midnight_utc(moment):
    start = day_start(moment)
    assert start <= moment < start + DAY
    assert start % DAY == 0


def test_the_next_month_is_named():
    assert next_month_text(NOW) == "2023-12-01"
