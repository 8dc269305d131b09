"""Our figures against the definitions of vLLM's ``bench serve``, worked out a second time, plainly.

What is written here follows its ``calculate_metrics``: a request's latencies from its own times, then mean,
median and percentiles of each kind, percentiles with linear interpolation as numpy has them. The same on a
server is ``tests/backends/test_definitions.py``, against vLLM's own program.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from statistics import fmean, median, quantiles

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.figures.goodput import Slo, good
from benchmarks.figures.metrics import measure
from benchmarks.figures.statistics import Summary
from benchmarks.generator.driving import Run
from tests.unit.benchmarks.samples import answered


@dataclass(frozen=True)
class Request:
    """When it was sent, what each token chunk took after the one before, and its tokens by usage."""

    start: float
    steps: list[float]
    tokens: int

    @property
    def ttft(self) -> float:
        return self.steps[0]

    @property
    def latency(self) -> float:
        return sum(self.steps)

    @property
    def tpot(self) -> float:
        return (self.latency - self.ttft) / (self.tokens - 1) if self.tokens > 1 else 0.0


steps = st.lists(st.floats(0.001, 10), min_size=1, max_size=8)


@st.composite
def sent(draw: st.DrawFn) -> Request:
    waits = draw(steps)
    return Request(draw(st.floats(0, 100)), waits, len(waits) + draw(st.integers(0, 3)))


requests = st.lists(sent(), min_size=2, max_size=12)


def check(found: Summary | None, values: Sequence[float]) -> None:
    if not values:
        assert found is None
        return
    assert found is not None
    assert found.mean == pytest.approx(fmean(values))
    assert found.p50 == pytest.approx(median(values))
    if len(values) > 1:
        hundredths = quantiles(values, n=100, method="inclusive")
        assert (found.p90, found.p95, found.p99) == pytest.approx(
            tuple(hundredths[n - 1] for n in (90, 95, 99))
        )


@given(requests)
def test_latencies_and_throughput(asked: list[Request]) -> None:
    samples = [
        answered(r.start, list(accumulate(r.steps, initial=r.start))[1:], tokens=r.tokens) for r in asked
    ]
    duration = max(r.start + r.latency for r in asked)
    found = measure(Run(0.0, duration, samples))
    check(found.ttft, [r.ttft for r in asked])
    check(found.e2el, [r.latency for r in asked])
    check(found.tpot, [r.tpot for r in asked if r.tokens > 1])
    check(found.itl, [step for r in asked for step in r.steps[1:]])
    assert found.requests_per_s == pytest.approx(len(asked) / duration)
    assert found.output_tokens_per_s == pytest.approx(sum(r.tokens for r in asked) / duration)
    assert found.completed == len(asked)


@given(requests, st.floats(0.5, 20), st.floats(0.05, 5), st.floats(0.5, 40))
def test_goodput(asked: list[Request], ttft: float, tpot: float, e2el: float) -> None:
    slos = [Slo("ttft", ttft), Slo("tpot", tpot), Slo("e2el", e2el)]
    for request in asked:
        arrivals = list(accumulate(request.steps, initial=0.0))[1:]
        expected = ttft >= request.ttft and tpot >= request.tpot and e2el >= request.latency
        near = (request.ttft - ttft, request.tpot - tpot, request.latency - e2el)
        if min(map(abs, near)) > 1e-9:  # else rounding decides
            assert good(answered(0.0, arrivals, tokens=request.tokens), slos) is expected
