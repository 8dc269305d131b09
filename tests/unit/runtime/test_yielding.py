"""The decision to give the machine back: its table, its order, and that it neither sticks nor flaps."""

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runtime.yielding import (
    CALM_SHARE,
    COOL_DEGREES,
    HOT_DEGREES,
    PATIENCE,
    TRANSITIONS,
    Cause,
    GpuReading,
    Reading,
    Stage,
    Step,
    Yielding,
)

CALM = Reading()
LIMIT = 0.5
PRESSING: dict[Cause, Reading] = {
    Cause.OWNER: Reading(paused=True),
    Cause.SCHEDULE: Reading(off_hours=True),
    Cause.BATTERY: Reading(on_battery=True),
    Cause.HEAT: Reading(degrees_left=HOT_DEGREES),
    Cause.GPU: Reading(gpus=(GpuReading("gpu", room=5, reserved=6),)),
    Cause.CPU: Reading(cpu_others=LIMIT + 0.01),
}
ALWAYS = 1e6

readings = st.builds(
    Reading,
    paused=st.booleans(),
    off_hours=st.booleans(),
    on_battery=st.booleans(),
    degrees_left=st.none() | st.floats(-20, 60),
    gpus=st.lists(
        st.builds(
            GpuReading, st.sampled_from(["a", "b"]), room=st.integers(-5, 20), reserved=st.integers(0, 20)
        ),
        max_size=2,
        unique_by=lambda gpu: gpu.id,
    ).map(tuple),
    cpu_others=st.none() | st.floats(0, 1),
    loaded=st.booleans(),
)
histories = st.lists(st.tuples(readings, st.floats(0, 90)), max_size=60)


def test_every_stage_can_be_left_and_the_table_names_no_other() -> None:
    assert {stage for stage, _ in TRANSITIONS} == set(Stage) == set(TRANSITIONS.values())
    assert {TRANSITIONS[stage, Step.RETURN] for stage in Stage if stage is not Stage.SERVING} == {
        Stage.SERVING
    }


@given(histories)
@settings(max_examples=400, deadline=None)
def test_whatever_comes_the_order_is_pause_drain_empty(history: list[tuple[Reading, float]]) -> None:
    decision, now = Yielding(cpu_limit=LIMIT), 0.0
    for reading, passed in history:
        now += passed
        stage = decision.stage
        for step in decision.look(reading, now):
            stage = TRANSITIONS[stage, step]
        assert stage is decision.stage
        assert (decision.stage is Stage.SERVING) == (decision.causes == ()) == (decision.reason is None)
        assert decision.stage is not Stage.AWAY or not reading.loaded
        if reading.paused or reading.off_hours:
            assert decision.stage is not Stage.SERVING
        assert (Cause.OWNER in decision.causes) == reading.paused
        assert decision.look(reading, now) == (), "the same moment seen twice changes nothing"


@given(histories, st.booleans())
@settings(max_examples=200, deadline=None)
def test_whatever_was_a_calm_machine_serves_and_a_wanted_one_is_empty(
    history: list[tuple[Reading, float]], wanted: bool
) -> None:
    decision, now = Yielding(cpu_limit=LIMIT), 0.0
    for reading, passed in history:
        now += passed
        decision.look(reading, now)
    for _ in range(3):
        now += 100
        decision.look(Reading(paused=wanted), now)
    assert decision.stage is (Stage.AWAY if wanted else Stage.SERVING)


@pytest.mark.parametrize("cause", Cause)
def test_each_cause_takes_its_time_to_come_and_to_go(cause: Cause) -> None:
    patience, decision = PATIENCE[cause], Yielding(cpu_limit=LIMIT)
    decision.look(CALM, 0)
    decision.look(PRESSING[cause], 1)
    assert (decision.stage is Stage.SERVING) == (patience.enter_s > 0)
    decision.look(PRESSING[cause], 1 + patience.enter_s)
    assert decision.causes == (cause,)
    decision.look(PRESSING[cause], 1 + patience.enter_s + patience.keep_loaded_s)
    assert decision.stage in (Stage.DRAINING, Stage.AWAY)
    gone = 100 + patience.enter_s + patience.keep_loaded_s
    decision.look(CALM, gone)
    decision.look(CALM, gone + patience.leave_s)
    assert decision.stage is Stage.SERVING


@given(st.sampled_from([cause for cause in Cause if PATIENCE[cause].enter_s > 0]), st.integers(10, 200))
def test_a_flicker_shorter_than_the_patience_is_not_noticed(cause: Cause, count: int) -> None:
    decision, short = Yielding(cpu_limit=LIMIT), PATIENCE[cause].enter_s * 0.9
    for number in range(count):
        decision.look(PRESSING[cause], number * short)
        decision.look(CALM, number * short + short * 0.9)
    assert decision.stage is Stage.SERVING


@given(st.sampled_from([cause for cause in Cause if PATIENCE[cause].leave_s > 0]), st.integers(10, 200))
def test_a_cause_that_comes_and_goes_keeps_the_node_away(cause: Cause, count: int) -> None:
    decision, short = Yielding(cpu_limit=LIMIT), PATIENCE[cause].leave_s * 0.9
    decision.look(PRESSING[cause], -ALWAYS)
    decision.look(PRESSING[cause], -ALWAYS + PATIENCE[cause].enter_s)
    steps = []
    for number in range(count):
        steps += decision.look(PRESSING[cause], number * short)
        steps += decision.look(CALM, number * short + short * 0.9)
    assert Step.RETURN not in steps


def test_between_the_two_marks_it_stays_as_it_is() -> None:
    between = {
        Cause.HEAT: Reading(degrees_left=(HOT_DEGREES + COOL_DEGREES) / 2),
        Cause.CPU: Reading(cpu_others=LIMIT * (1 + CALM_SHARE) / 2),
    }
    for (cause, reading), before in itertools.product(between.items(), (False, True)):
        decision = Yielding(cpu_limit=LIMIT)
        if before:
            decision.look(PRESSING[cause], 0)
            decision.look(PRESSING[cause], ALWAYS)
        for moment in (1, 2, 3):
            decision.look(reading, moment * ALWAYS)
        assert (cause in decision.causes) == before


def test_what_left_a_gpu_comes_back_only_when_it_fits_again() -> None:
    decision = Yielding()

    def look(room: int, reserved: int, now: float) -> Stage:
        decision.look(Reading(gpus=(GpuReading("gpu", room, reserved),), loaded=reserved > 0), now)
        return decision.stage

    assert look(10, 8, 0) is Stage.SERVING
    look(7, 8, 10)
    assert look(7, 8, 20) is Stage.DRAINING
    assert look(7, 0, 30) is Stage.AWAY
    assert look(7, 0, 1000) is Stage.AWAY, "eight would not fit"
    look(8, 0, 1010)
    assert look(8, 0, 1080) is Stage.SERVING


def test_memory_is_unloaded_at_once_for_the_owner_and_kept_a_while_on_battery() -> None:
    decision = Yielding()
    assert decision.look(Reading(on_battery=True, loaded=True), 0) == (Step.YIELD,)
    assert decision.look(Reading(on_battery=True, paused=True, loaded=True), 1) == (Step.DRAIN,)
    assert decision.look(Reading(paused=True), 2) == (Step.EMPTY,)
    assert decision.look(Reading(paused=True, loaded=True), 3) == (Step.DRAIN,)


def test_a_limit_nobody_set_is_never_passed() -> None:
    decision = Yielding(cpu_limit=None)
    for moment in range(5):
        decision.look(Reading(cpu_others=1.0), moment * ALWAYS)
    assert decision.stage is Stage.SERVING
