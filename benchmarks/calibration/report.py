"""The result of `porten-bench calibrate`.

Owns the bounds that the meter is to keep, and what is said where it does not.
"""

from collections.abc import Iterator, Sequence
from typing import Final

from benchmarks.calibration.measuring import Calibration, Limits
from benchmarks.calibration.truth import Difference
from benchmarks.figures.bounds import Bound, Figure, scaled
from benchmarks.figures.doubts import about_generator
from benchmarks.reports.result import Group, Made, Remark, Result, group

REQUESTS_PER_S: Final = Bound(1500.0, at_least=True)
CHUNKS_PER_S: Final = Bound(30_000.0, at_least=True)
_SIDES: Final = ("injected", "reported")


def report(found: Calibration, made: Made) -> Result:
    """The result as it is shown and written."""
    plan = found.plan
    cases = [
        group(str(case), _case(case.name, found.cases[case.name]), sides=_SIDES)
        for case in plan.cases
        if case.name in found.cases
    ]
    return Result(
        benchmark="calibrate",
        made=made,
        settings={
            "cases": [str(case) for case in plan.cases],
            "rounds": plan.rounds,
            "connections": plan.connections,
            "streams": plan.streams,
            "seed": plan.seed,
        },
        groups=[*cases, *([_limits(found.limits)] if found.limits else [])],
        remarks=list(_remarks(found)),
        interrupted=found.interrupted,
    )


def _case(name: str, found: Sequence[Difference]) -> list[Figure]:
    return [
        Figure(
            key=f"{name}/{each.latency}_{each.statistic}_error_ms",
            name=f"{each.latency.upper()} {each.statistic}, off by",
            unit="ms",
            found=each.error_s * 1000,
            bound=Bound(round(each.allowed_s * 1000, 3)),
            direct=f"{each.injected * 1000:.2f} ms",
            via=f"{each.reported * 1000:.2f} ms",
        )
        for each in found
    ]


def _limits(limits: Limits) -> Group:
    where = "one process" if limits.core is None else f"one process on core {limits.core}"
    return group(
        f"The generator's limits, {where}",
        [
            Figure(
                key="limits/requests_per_s",
                name="requests/s, of one chunk",
                unit="",
                found=limits.requests_per_s,
                bound=REQUESTS_PER_S,
            ),
            Figure(
                key="limits/chunks_per_s",
                name="chunks/s, each by itself",
                unit="",
                found=limits.chunks_per_s,
                bound=CHUNKS_PER_S,
            ),
            Figure(
                key="limits/request_cpu_us",
                name="CPU of the generator, a request",
                unit="us",
                found=scaled(limits.request_cpu_s, 1e6),
            ),
            Figure(
                key="limits/chunk_cpu_us",
                name="CPU of the generator, a chunk",
                unit="us",
                found=scaled(limits.chunk_cpu_s, 1e6),
            ),
        ],
    )


def _remarks(found: Calibration) -> Iterator[Remark]:
    off = [each for case in found.cases.values() for each in case if each.error_s > each.allowed_s]
    if off:
        worst = max(off, key=lambda each: each.error_s / each.allowed_s)
        text = (
            f"{len(off)} figures are off by more than 2 % or 1 ms, most of all {worst.latency.upper()} "
            f"{worst.statistic}: {worst.reported * 1000:.2f} ms for {worst.injected * 1000:.2f} ms. What "
            "else runs on this machine? Latencies that it measures now are as uncertain."
        )
        yield Remark(code="meter_off", text=text)
    if found.limits is None:
        return
    if found.limits.core is None:
        yield Remark(code="not_pinned", text="There is no second core: generator and engine shared one.")
    if not about_generator([found.limits.busy], 1.0):
        text = (
            f"The generator used {found.limits.busy:.0%} of its core at most: it was the engine, or what "
            "else runs here, that gave no more chunks/s. What the generator takes for each is its CPU above."
        )
        yield Remark(code="engine_is_the_limit", text=text)
