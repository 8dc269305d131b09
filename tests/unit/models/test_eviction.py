"""Which weights make room: the right ones, no more than needed, or none at all."""

from itertools import combinations

from hypothesis import given
from hypothesis import strategies as st

from models.eviction import Evictable, choose_victims

WEIGHTS = st.builds(
    Evictable,
    digest=st.uuids().map(str),
    room=st.integers(1, 50),
    used=st.integers(0, 5).map(float),
)


def weights(digest: str, room: int, used: float) -> Evictable:
    return Evictable(digest=digest, room=room, used=used)


def test_what_was_used_longest_ago_goes_first() -> None:
    old, middle, new = weights("old", 10, 1.0), weights("middle", 10, 2.0), weights("new", 10, 3.0)
    assert choose_victims(10, [new, old, middle]) == [old]
    assert choose_victims(15, [new, old, middle]) == [old, middle]


def test_what_one_later_alone_makes_needless_stays() -> None:
    small, large = weights("small", 5, 1.0), weights("large", 100, 2.0)
    assert choose_victims(50, [small, large]) == [large]


@given(needed=st.integers(1, 200), candidates=st.lists(WEIGHTS, max_size=8))
def test_enough_goes_and_nothing_in_vain(needed: int, candidates: list[Evictable]) -> None:
    chosen = choose_victims(needed, candidates)
    if chosen is None:
        assert sum(each.room for each in candidates) < needed
        return
    assert sum(each.room for each in chosen) >= needed
    for kept in combinations(chosen, len(chosen) - 1):
        assert sum(each.room for each in kept) < needed
