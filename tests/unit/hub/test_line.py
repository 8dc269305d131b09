"""Whose turn it is: round robin between organisations, in order within one, and nobody holds others up."""

from collections import Counter

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from hub.line import Line, Waiter


def waiting(line, organisation, count, kind="any"):
    waiters = [Waiter(organisation, kind, f"{organisation}{number}") for number in range(count)]
    for waiter in waiters:
        assert line.join(waiter)
    return waiters


def served(line, count, may=lambda _waiter: True):
    return [waiter.request for _ in range(count) if (waiter := line.next(may)) is not None]


def test_organisations_take_turns_however_many_wait():
    line = Line(100)
    waiting(line, "a", 50)
    waiting(line, "b", 3)
    assert served(line, 6) == ["a0", "b0", "a1", "b1", "a2", "b2"]
    assert served(line, 2) == ["a3", "a4"]


def test_one_that_comes_again_and_again_gets_no_more_than_its_turn():
    line = Line(100)
    waiting(line, "a", 10)
    order = []
    for number in range(8):
        line.join(Waiter("b", "any", f"b{number}"))
        order += served(line, 2)
    assert Counter(request[0] for request in order) == {"a": 8, "b": 8}


def test_who_cannot_use_what_is_free_keeps_its_turn_and_holds_nobody_up():
    line = Line(100)
    waiting(line, "a", 3, kind="elsewhere")
    waiting(line, "b", 3, kind="here")

    def here(waiter):
        return waiter.kind == "here"

    assert served(line, 2, here) == ["b0", "b1"]
    assert served(line, 2) == ["a0", "b2"], "it was served longest ago"
    assert served(line, 5, here) == []
    assert served(line, 5) == ["a1", "a2"]


def test_within_an_organisation_it_is_first_come_first_served_among_those_that_may():
    line = Line(100)
    first, second = Waiter("a", "us", 1), Waiter("a", "eu", 2)
    third = Waiter("a", "us", 3)
    for waiter in (first, second, third):
        line.join(waiter)
    assert line.next(lambda waiter: waiter.kind == "eu") is second
    assert [line.next(bool), line.next(bool)] == [first, third]


def test_an_organisation_may_have_so_many_in_it_whatever_others_have():
    line = Line(4)
    waiting(line, "a", 3)
    last = Waiter("a", "elsewhere", "a3")
    assert line.join(last)
    assert not line.join(Waiter("a", "any", "a4"))
    waiting(line, "b", 4)
    assert not line.join(Waiter("b", "any", "b4"))
    line.leave(last)
    assert line.join(Waiter("a", "any", "a5")), "there is room again"
    assert not line.join(Waiter("b", "any", "b5")), "which is nobody else's"
    assert served(line, 9) == ["a0", "b0", "a1", "b1", "a2", "b2", "a5", "b3"]


def test_only_the_first_of_each_kind_is_asked():
    line = Line(1000)
    waiting(line, "a", 500)
    waiting(line, "a", 3, kind="other")
    asked = []
    assert line.next(lambda waiter: asked.append(waiter.request)) is None
    assert len(asked) == 2


def test_leaving_twice_or_never_having_joined_does_nothing():
    line = Line(2)
    (waiter,) = waiting(line, "a", 1)
    line.leave(waiter)
    line.leave(waiter)
    line.leave(Waiter("b", "any", "b0"))
    assert (len(line), line.next(bool), line.file_of(waiter)) == (0, None, [])


KINDS = ["x", "y", "z"]
ORGANISATIONS = ["a", "b", "c"]
LIMIT = 5


class Lines(RuleBasedStateMachine):
    """Against a list of all that wait, looked through from the beginning each time."""

    def __init__(self):
        super().__init__()
        self.line = Line(LIMIT)
        self.all = []
        self.last = {}
        self.turn = 0

    @rule(organisation=st.sampled_from(ORGANISATIONS), kind=st.sampled_from(KINDS))
    def join(self, organisation, kind):
        waiter = Waiter(organisation, kind, None)
        counts = Counter(each.organisation for each in self.all)
        assert self.line.join(waiter) == (counts[organisation] < LIMIT)
        if counts[organisation] < LIMIT:
            self.all.append(waiter)

    @rule(data=st.data())
    def leave(self, data):
        if self.all:
            waiter = data.draw(st.sampled_from(self.all))
            self.all.remove(waiter)
            self.line.leave(waiter)

    @rule(may=st.frozensets(st.sampled_from(KINDS)))
    def serve(self, may):
        able = [each for each in self.all if each.kind in may]
        expected = min(
            able, key=lambda each: (self.last.get(each.organisation, 0), each.number), default=None
        )
        assert self.line.next(lambda each: each.kind in may) is expected
        if expected is not None:
            self.all.remove(expected)
            self.turn += 1
            self.last[expected.organisation] = self.turn

    @invariant()
    def it_is_as_long_as_it_should_be(self):
        assert len(self.line) == len(self.all)
        if not self.all:
            self.last = {}


def test_the_line_is_what_a_list_of_all_would_be():
    run_state_machine_as_test(
        Lines, settings=settings(max_examples=200, stateful_step_count=50, deadline=None)
    )


@pytest.mark.parametrize("share", [2, 3])
def test_in_the_long_run_everybody_gets_the_same(share):
    line = Line(10_000)
    for number in range(share):
        waiting(line, f"o{number}-", 500 * (number + 1))
    first = Counter(request.split("-")[0] for request in served(line, 400))
    assert max(first.values()) - min(first.values()) <= 1
