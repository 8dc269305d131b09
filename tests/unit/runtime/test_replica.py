"""The replica's table of transitions."""

import pytest

from runtime.replica import TRANSITIONS, IllegalStep, Replica, ReplicaState, Step


def replica(state: ReplicaState) -> Replica:
    return Replica("r", "m", ("cpu",), "b", reserved=1, slots=2, started_at=0.0, state=state)


@pytest.mark.parametrize("state", ReplicaState)
@pytest.mark.parametrize("step", Step)
def test_only_the_table_moves_a_replica(state: ReplicaState, step: Step) -> None:
    one = replica(state)
    if (state, step) in TRANSITIONS:
        assert one.may(step)
        one.take(step)
        assert one.state is TRANSITIONS[state, step]
    else:
        assert not one.may(step)
        with pytest.raises(IllegalStep):
            one.take(step)


def test_every_state_can_end() -> None:
    reached = {ReplicaState.STOPPED}
    while True:
        more = {start for (start, _), end in TRANSITIONS.items() if end in reached} | reached
        if more == reached:
            break
        reached = more
    assert reached == set(ReplicaState)


def test_its_speed_follows_what_is_observed() -> None:
    one = replica(ReplicaState.READY)
    one.observe_answer(0, 1.0)
    one.observe_answer(10, 0.0)
    assert one.tokens_per_second == 0.0
    one.observe_answer(100, 1.0)
    assert one.tokens_per_second == 100.0
    one.observe_answer(50, 1.0)
    assert 50.0 < one.tokens_per_second < 100.0
