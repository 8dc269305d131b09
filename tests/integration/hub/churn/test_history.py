"""The judge of the running system is tried first: it must see what breaks the promise, and nothing else."""

from dataclasses import replace

import pytest

from tests.integration.hub.churn.history import History
from tests.unit.hub.oracle import NO_WISH, Key, Machine, Wish

TREE = {"eu": None, "eu-de": "eu", "us": None}
EUROPE = Key("org_a", "own", frozenset({"eu"}), "community")
NODE = Machine("n", "org_a", "eu-de", True, "trusted", "private", frozenset(), False)


@pytest.fixture
def moved():
    """A node that moved to America: announced at 10, acknowledged at 12."""
    history = History(TREE)
    history.key("k").changed(EUROPE, 0, 0)
    history.node("n").changed(NODE, 0, 0)
    history.node("n").changed(replace(NODE, region="us"), 10, 12)
    return history


@pytest.mark.parametrize(
    ("begin", "end", "right"),
    [
        (1, 2, True),  # long before
        (9, 20, True),  # begun before: a choice may have been made at once
        (11, 11.5, True),  # between announcement and acknowledgement
        (11.9, 15, True),  # begun just before the acknowledgement
        (12.1, 15, False),  # begun after it
    ],
)
def test_the_old_may_count_until_the_acknowledgement(moved, begin, end, right):
    assert moved.allows("k", "n", NO_WISH, begin, end) is right


def test_the_new_may_count_from_the_announcement(moved):
    moved.key("america").changed(replace(EUROPE, regions=frozenset({"us"})), 0, 0)
    assert [moved.allows("america", "n", NO_WISH, begin, begin + 1) for begin in (8, 9.5, 11, 13)] == [
        False,
        True,
        True,
        True,
    ]


def test_what_counted_at_different_times_does_not_count_together(moved):
    """A key that went to America as late as the node's return to Europe: at no moment did both fit."""
    moved.key("late").changed(replace(EUROPE, regions=frozenset({"us"})), 20, 20)
    moved.node("n").changed(NODE, 14, 15)
    assert not moved.allows("late", "n", NO_WISH, 5, 30)


def test_what_is_revoked_or_was_never_there_serves_nobody(moved):
    moved.key("k").changed(None, 5, 6)
    assert moved.allows("k", "n", NO_WISH, 5.5, 7)
    assert not moved.allows("k", "n", NO_WISH, 6.5, 9)
    assert not moved.allows("nobody", "n", NO_WISH, 0, 1)
    assert not moved.allows("k", "nowhere", NO_WISH, 0, 1)


def test_a_wish_is_judged_too(moved):
    assert not moved.allows("k", "n", Wish(node="other"), 0, 1)
    assert not moved.allows("k", "n", Wish(region="us"), 0, 1)
    assert moved.allows("k", "n", Wish(region="eu-de"), 0, 1)
