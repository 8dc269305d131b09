"""The steps a new organisation goes through, and the sums it is shown."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hub.portal.node_view import node_view
from hub.portal.overview import Progress, headline, steps
from hub.portal.usage import MINIMUM_BAR, Sums, bars, day_name, day_names, day_start, sums
from hub.storage.records import UsageTotal

INSTALL = "curl -fsSL https://hub.example/install.sh | sh"
EVERY = [Progress(*done) for done in itertools.product([False, True], repeat=4)]
DAY = 86_400
NOW = 1_700_000_000.0


@pytest.mark.parametrize("progress", EVERY)
def test_the_first_step_that_is_not_done_is_the_next(progress):
    way = steps(progress, INSTALL)
    done = [progress.has_node, progress.is_online, progress.has_key, progress.has_used]
    assert [step.done for step in way] == done
    assert [step.next for step in way] == [not done[place] and all(done[:place]) for place in range(4)]


@pytest.mark.parametrize("progress", EVERY)
def test_the_command_is_shown_as_long_as_it_is_needed(progress):
    node, *others = steps(progress, INSTALL)
    assert node.command == (None if progress.has_node else INSTALL)
    assert all(step.command is None for step in others)


@pytest.mark.parametrize("progress", EVERY)
def test_a_step_that_leads_somewhere_says_where(progress):
    assert all(step.link_words for step in steps(progress, INSTALL) if step.link)


def test_the_headline_counts(make_node):
    views = [node_view(make_node(id=f"node_{number}"), None, NOW) for number in range(2)]
    assert headline([]).startswith("No machine has joined")
    assert headline(views[:1]) == "Your node is not online: requests are refused until it is."
    assert "None of your 2 nodes" in headline(views)
    back = node_view(make_node(), None, NOW, expected=True)
    assert headline([back]) == "Your node is online."
    assert headline([back, *views]) == "1 of your 3 nodes is online."
    assert headline([back, back, *views]) == "2 of your 4 nodes are online."
    assert headline([back, back]) == "All of your 2 nodes are online."


def total(day, prompt=0, completion=0, requests=1, cached=0):
    return UsageTotal(day, "m", "key_1", requests, prompt, cached, completion)


TOTALS = st.builds(
    total,
    st.sampled_from(day_names(NOW, 8)),
    st.integers(0, 10**9),
    st.integers(0, 10**9),
    st.integers(0, 10**6),
    st.integers(0, 10**9),
)


@given(st.lists(TOTALS, max_size=20))
def test_sums_and_bars_lose_nothing(totals):
    together = sums(totals)
    assert together == Sums(
        sum(each.requests for each in totals),
        sum(each.prompt_tokens for each in totals),
        sum(each.cached_tokens for each in totals),
        sum(each.completion_tokens for each in totals),
    )
    days = day_names(NOW, 8)
    drawn = bars(totals, days)
    assert [bar.day for bar in drawn] == days
    assert sum(bar.tokens for bar in drawn) == together.prompt_tokens + together.completion_tokens
    highest = max(bar.tokens for bar in drawn)
    for bar in drawn:
        assert MINIMUM_BAR <= bar.height <= 100
        assert (bar.height == 100) is (bar.tokens == highest > 0)


def test_bars_without_use_are_low_and_without_days_none():
    assert [bar.height for bar in bars([], ["2023-11-14"])] == [MINIMUM_BAR]
    assert bars([total("2023-11-13", 5)], ["2023-11-14"])[0].tokens == 0
    assert bars([], []) == []


@given(st.floats(0, 4e9))
def test_a_day_begins_at_midnight_utc(moment):
    start = day_start(moment)
    assert start <= moment < start + DAY
    assert start % DAY == 0
    assert day_name(start) == day_name(moment)


@given(st.floats(DAY * 40, 4e9), st.integers(1, 40))
def test_days_are_named_in_order_and_end_today(moment, count):
    names = day_names(moment, count)
    assert names == sorted(set(names))
    assert (len(names), names[-1]) == (count, day_name(moment))
    assert names[0] == day_name(day_start(moment) - (count - 1) * DAY)
