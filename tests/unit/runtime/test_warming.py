"""What is told of a load on its way."""

from dataclasses import replace

import pytest

from runtime.snapshot import ModelView
from runtime.warming import Warmings

LOADING = ModelView(
    model="m",
    digest=None,
    size_bytes=100,
    on_disk=False,
    state="warming",
    fits=True,
    context_length=64,
    capabilities=("chat",),
    phase="downloading",
    done_bytes=10,
    total_bytes=100,
)


def test_the_mean_rate_of_the_present_phase_tells_the_time_left() -> None:
    warmings = Warmings()
    assert warmings.describe(LOADING, now=0)["eta_s"] is None, "one look is no rate"
    seen = warmings.describe(replace(LOADING, done_bytes=30), now=2)
    assert (seen["percent"], seen["eta_s"], seen["bytes_done"], seen["bytes_total"]) == (30.0, 7.0, 30, 100)
    assert warmings.describe(replace(LOADING, done_bytes=60), now=10)["eta_s"] == 8.0
    assert warmings.describe(replace(LOADING, phase="verifying", done_bytes=0), now=11)["eta_s"] is None


@pytest.mark.parametrize(
    ("state", "phase", "told"),
    [
        ("warming", "queued", "queued"),
        ("warming", "downloading", "downloading"),
        ("warming", "verifying", "downloading"),
        ("warming", "loading", "loading"),
        ("ready", "ready", "ready"),
        ("cold", "queued", "cold"),
        ("cold", "failed", "failed"),
    ],
)
def test_its_phase(state: str, phase: str, told: str) -> None:
    view = replace(LOADING, state=state, phase=phase)  # type: ignore[arg-type]
    assert Warmings().describe(view, now=0)["phase"] == told


def test_nothing_is_counted_that_is_not_on_its_way() -> None:
    for view in (replace(LOADING, state="ready", phase="ready"), replace(LOADING, total_bytes=None)):
        told = Warmings().describe(view, now=0)
        assert told["percent"] is told["eta_s"] is None
