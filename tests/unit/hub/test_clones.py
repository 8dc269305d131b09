"""Two machines with one key are told from one machine that comes and goes."""

from hypothesis import given
from hypothesis import strategies as st

from hub.clones import QUARANTINE_S, WINDOW_S, CloneWatch


def test_two_machines_that_take_turns_are_both_kept_out_for_a_while():
    watch = CloneWatch()
    assert [watch.admits("n", instance, 100.0 + turn) for turn, instance in enumerate("ABAB")] == [
        True,
        True,
        True,
        False,
    ]
    assert not watch.admits("n", "A", 110.0)
    assert not watch.admits("n", "C", 103.0 + QUARANTINE_S - 1)
    assert watch.quarantined(110.0) == {"n": 103.0 + QUARANTINE_S}
    assert watch.admits("other", "A", 110.0)
    assert watch.quarantined(103.0 + QUARANTINE_S) == {}
    assert watch.admits("n", "A", 103.0 + QUARANTINE_S)


@given(st.lists(st.tuples(st.booleans(), st.floats(0, 60)), max_size=200))
def test_one_machine_that_restarts_and_reconnects_never_is(history):
    watch, now, run = CloneWatch(), 0.0, 0
    for restarted, after in history:
        now, run = now + after, run + restarted
        assert watch.admits("n", f"run {run}", now)
    assert watch.quarantined(now) == {}


def test_returns_far_apart_are_forgiven():
    watch = CloneWatch()
    for turn, instance in enumerate("ABABAB"):
        assert watch.admits("n", instance, turn * WINDOW_S)


def test_memory_is_bounded():
    watch = CloneWatch()
    for number in range(10_050):
        watch.admits(f"n{number}", "A", 0.0)
    assert len(watch._nodes) == 10_000
