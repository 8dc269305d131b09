"""Whether a model fits each device, by the numbers."""

import pytest

from models.fit import MemoryEstimate
from runtime.backends.base import ReplicaPlan
from runtime.model_report import DeviceRoom, fits_of, judge


def plan(total: int, shards: tuple[int, ...] = (1,)) -> ReplicaPlan:
    memory = MemoryEstimate(weights=total, kv_cache=0, compute=0, overhead=0)
    return ReplicaPlan(
        "engine", slots=1, context_length=1, threads=1, memory=memory, batch_tokens=1, shards=shards
    )


@pytest.mark.parametrize(
    ("needed", "verdict"),
    [
        (0, "fits"),
        (60, "fits"),
        (61, "fits after eviction"),
        (100, "fits after eviction"),
        (101, "does not fit"),
    ],
)
def test_what_is_taken_now_only_counts_for_now(needed: int, verdict: str) -> None:
    assert judge(needed, DeviceRoom("cpu", "cpu", budget=100, reserved=40)) == verdict


def test_only_devices_that_the_engine_can_use_are_judged() -> None:
    rooms = [DeviceRoom("gpu", "cuda", 50), DeviceRoom("cpu", "cpu", 100, 70)]
    (fit,) = fits_of([plan(80)], {"engine": ("cpu",)}, rooms)
    assert (fit.device, fit.needed, fit.free, fit.budget) == ("cpu", 80, 30, 100)
    assert fit.verdict == "fits after eviction"


def test_a_model_is_spread_over_as_few_devices_as_will_do() -> None:
    rooms = [DeviceRoom("a", "cuda", 50), DeviceRoom("b", "cuda", 50)]
    fits = fits_of([plan(80, (1, 2, 4))], {"engine": ("cuda",)}, rooms)
    assert [(fit.shards, fit.needed, fit.verdict) for fit in fits] == [(2, 40, "fits")] * 2
    (alone,) = fits_of([plan(80, (1, 2, 4))], {"engine": ("cuda",)}, rooms[:1])
    assert (alone.shards, alone.verdict) == (1, "does not fit")
