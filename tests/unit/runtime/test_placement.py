"""Placement: pure numbers, tried by the thousand."""

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from runtime.placement import (
    Capacity,
    Impossible,
    MakeRoom,
    Offer,
    Place,
    Resident,
    Wait,
    choose_evictions,
    plan_placement,
)

RESIDENTS = st.lists(
    st.builds(
        Resident,
        replica_id=st.uuids().map(str),
        devices=st.sampled_from([("cpu",), ("gpu-0",), ("gpu-1",), ("gpu-0", "gpu-1")]),
        memory=st.integers(1, 60),
        leaving=st.booleans(),
        idle_s=st.none() | st.floats(0, 1000),
        over_s=st.none() | st.floats(0, 1000),
        load_s=st.floats(0, 100),
    ),
    max_size=8,
)
CAPACITIES = st.tuples(st.integers(0, 120), st.integers(0, 120), st.integers(0, 120)).map(
    lambda budgets: [
        Capacity("gpu-0", "cuda", budgets[0]),
        Capacity("gpu-1", "cuda", budgets[1]),
        Capacity("cpu", "cpu", budgets[2]),
    ]
)
OFFERS = st.lists(
    st.builds(
        Offer,
        backend=st.just("b"),
        device_kind=st.sampled_from(["cpu", "cuda"]),
        memory=st.integers(1, 100),
        slots=st.just(1),
        devices=st.integers(0, 2),
    ),
    max_size=3,
)


@given(OFFERS, CAPACITIES, RESIDENTS, st.sets(st.sampled_from(["cpu", "gpu-0", "gpu-1"])), st.booleans())
def test_no_plan_overcommits_or_touches_what_it_may_not(
    offers: list[Offer],
    capacities: list[Capacity],
    residents: list[Resident],
    claimed: set[str],
    pressing: bool,
) -> None:
    plan = plan_placement(offers, capacities, residents, claimed=claimed, pressing=pressing)
    budgets = {capacity.device_id: capacity.budget for capacity in capacities}
    by_id = {resident.replica_id: resident for resident in residents}
    match plan:
        case Place(devices, offer):
            assert len(set(devices)) == offer.devices
            for device in devices:
                used = sum(r.memory for r in residents if device in r.devices)
                assert used + offer.memory <= budgets[device]
                assert device not in claimed
        case MakeRoom(devices, evict):
            assert evict
            assert not claimed & set(devices)
            for resident in (by_id[replica_id] for replica_id in evict):
                assert resident.idle_s is not None or (pressing and resident.over_s is not None)
                assert not resident.leaving
                assert set(resident.devices) & set(devices)
        case Wait(devices):
            assert devices
        case Impossible():
            for offer in offers:
                could = [c for c in capacities if c.kind == offer.device_kind and c.budget >= offer.memory]
                assert len(could) < offer.devices


@given(RESIDENTS, st.integers(1, 200))
def test_evictions_are_enough_and_none_is_in_vain(residents: list[Resident], missing: int) -> None:
    chosen = choose_evictions(residents, missing)
    freed = {r.replica_id: r.memory for r in residents if r.replica_id in chosen}
    assert not chosen or sum(freed.values()) >= missing
    for replica_id in chosen:
        assert sum(freed.values()) - freed[replica_id] < missing


def resident(name: str, memory: int = 10, **facts: Any) -> Resident:
    return Resident(name, ("cpu",), memory, **facts)


def test_the_longest_idle_goes_first_unless_it_is_dear_to_bring_back() -> None:
    young, old = resident("young", idle_s=10.0, load_s=1.0), resident("old", idle_s=60.0, load_s=1.0)
    assert choose_evictions([young, old], 10) == ("old",)
    dear = resident("dear", idle_s=60.0, load_s=100.0)
    assert choose_evictions([young, dear], 10) == ("young",)


def test_one_large_idle_replica_spares_the_small_one() -> None:
    small, large = resident("small", 5, idle_s=90.0), resident("large", 50, idle_s=10.0)
    assert choose_evictions([small, large], 40) == ("large",)


def test_it_waits_for_what_is_leaving_rather_than_evicting_more() -> None:
    here = [resident("leaving", 50, leaving=True), resident("idle", 50, idle_s=5.0)]
    plan = plan_placement([Offer("b", "cpu", 40, 1)], [Capacity("cpu", "cpu", 100)], here)
    assert plan == Wait(("cpu",))


def test_a_better_device_is_worth_an_eviction() -> None:
    offers = [Offer("fast", "cuda", 50, 1), Offer("slow", "cpu", 50, 1)]
    capacities = [Capacity("gpu", "cuda", 60), Capacity("cpu", "cpu", 60)]
    on_gpu = Resident("r", ("gpu",), 30, idle_s=1.0)
    assert plan_placement(offers, capacities, [on_gpu]) == MakeRoom(("gpu",), ("r",))
    busy = Resident("r", ("gpu",), 30)
    assert plan_placement(offers, capacities, [busy]) == Place(("cpu",), offers[1])


def test_impossible_says_what_is_missing() -> None:
    assert plan_placement([], [], []) == Impossible("no backend can run it")
    plan = plan_placement([Offer("b", "cpu", 2_000_000_000, 1)], [Capacity("cpu", "cpu", 1_000_000_000)], [])
    assert plan == Impossible("it needs 2,000 MB and at most 1,000 MB can be had")
    plan = plan_placement([Offer("b", "cuda", 1, 1)], [Capacity("cpu", "cpu", 10)], [])
    assert plan == Impossible("it needs a device of kind cuda")


GPUS = [Capacity("gpu-0", "cuda", 60), Capacity("gpu-1", "cuda", 60), Capacity("gpu-2", "cuda", 20)]


def test_an_offer_over_two_devices_takes_those_with_room() -> None:
    offer = Offer("b", "cuda", 50, 1, devices=2)
    assert plan_placement([offer], GPUS, []) == Place(("gpu-0", "gpu-1"), offer)
    both = Resident("both", ("gpu-0", "gpu-1"), 20, idle_s=1.0)
    assert plan_placement([offer], GPUS, [both]) == MakeRoom(("gpu-0", "gpu-1"), ("both",))
    busy = Resident("busy", ("gpu-1",), 20)
    assert plan_placement([offer], GPUS, [busy]) == Wait(("gpu-0", "gpu-1"))
    spread = Offer("b", "cuda", 50, 1, devices=3)
    plan = plan_placement([spread], GPUS, [])
    assert plan == Impossible("it needs 0 MB on each of 3 devices and at most 0 MB can be had")


def test_what_takes_no_device_is_placed_whatever_else_is_there() -> None:
    offer = Offer("external:own", "cpu", 0, 3, devices=0)
    assert plan_placement([offer], [], []) == Place((), offer)
    full = [Resident("busy", ("cpu",), 60)]
    cpu = [Capacity("cpu", "cpu", 60)]
    assert plan_placement([offer], cpu, full, claimed=["cpu"], pressing=True) == Place((), offer)


def test_nobody_goes_for_room_that_is_of_no_use_yet() -> None:
    offer = Offer("b", "cuda", 50, 1, devices=2)
    idle, busy = Resident("idle", ("gpu-0",), 20, idle_s=1.0), Resident("busy", ("gpu-1",), 20)
    assert plan_placement([offer], GPUS, [idle, busy]) == Wait(("gpu-0", "gpu-1"))


def test_who_answers_is_asked_to_finish_only_where_the_turn_is_over_and_somebody_presses() -> None:
    offers, capacities = [Offer("b", "cpu", 50, 1)], [Capacity("cpu", "cpu", 60)]
    answering = resident("r", 30, over_s=1.0)
    assert plan_placement(offers, capacities, [answering]) == Wait(("cpu",))
    assert plan_placement(offers, capacities, [answering], pressing=True) == MakeRoom(("cpu",), ("r",))
    within = resident("r", 30)
    assert plan_placement(offers, capacities, [within], pressing=True) == Wait(("cpu",))
    two = [resident("long over", 30, over_s=9.0), resident("just over", 20, over_s=1.0)]
    assert choose_evictions(two, 20, asking=True) == ("long over",)


def test_another_way_beats_asking_somebody_to_finish() -> None:
    offers = [Offer("fast", "cuda", 50, 1), Offer("slow", "cpu", 50, 1)]
    capacities = [Capacity("gpu", "cuda", 60), Capacity("cpu", "cpu", 60)]
    answering = Resident("r", ("gpu",), 30, over_s=1.0)
    assert plan_placement(offers, capacities, [answering], pressing=True) == Place(("cpu",), offers[1])
