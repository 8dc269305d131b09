"""The result of a ramp: the figures of each step, the knee, and throughput against latency as a plot.

A step is told as a measurement by itself is (``report``), its keys after the name of the step: ``c8/``.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Final

import msgspec

from benchmarks.figures.bounds import Better, Figure
from benchmarks.figures.metrics import ServingMetrics
from benchmarks.figures.statistics import Summary, least_samples
from benchmarks.reports.page import number
from benchmarks.reports.result import Axis, Group, Line, Made, Plot, Remark, Result, group
from benchmarks.serving import report as serving_report
from benchmarks.serving.ramp import TURNED_AWAY, RampResult, Step

_THROUGHPUT: Final = "output tokens/s"
_ROUTINE: Final = frozenset({"percentiles_left_out", "steady_part"})
"""Remarks that warn of nothing, and are of nearly every step."""


def report(found: RampResult, made: Made) -> Result:
    """The result as it is shown and written."""
    steps = [(step, serving_report.report(step.found, made, step.evaluation)) for step in found.steps]
    settings = serving_report.plan_settings(found.plan) | {"load": {"kind": "ramp", "steps": str(found.ramp)}}
    knee = found.knee()
    return Result(
        benchmark="serving",
        made=made,
        settings=settings,
        groups=[
            group("Knee", _knee(found)),
            group(_title(found), _summary(found), sides=("TTFT, p50", "E2EL, mean")),
            *(one for step, result in steps for one in _keyed(found, step, result)),
        ],
        plots=[_plot(found)],
        refusals=_of_steps(
            (step, remark)
            for step, result in steps
            for remark in result.refusals
            if remark.code != TURNED_AWAY
        ),
        remarks=[
            Remark(code="knee" if knee.index is not None else "no_knee", text=_told(found)),
            *_of_steps(
                (step, remark) for step, result in steps for remark in (*_overload(result), *result.remarks)
            ),
        ],
        interrupted=found.interrupted,
        details={"steps": [{"level": step.level} | result.details for step, result in steps]},
    )


def _title(found: RampResult) -> str:
    return f"{found.plan.target.model} at {found.plan.target.base_url}, step by step"


def _name(found: RampResult, step: Step) -> str:
    return f"{found.ramp.key}{step.level:g}"


def _summary(found: RampResult) -> list[Figure]:
    """A line for each step: latencies, then what throughput came of it."""
    return [
        Figure(
            key=f"steps/{_name(found, step)}/output_tokens_per_s",
            name=f"{_THROUGHPUT}, {step.found.plan.load}",
            unit="",
            found=step.point.throughput,
            which_is_better=Better.MORE,
            direct=_milliseconds(metrics.ttft.p50 if metrics.ttft else None),
            via=_milliseconds(step.point.latency_s),
        )
        for step in found.steps
        for metrics in [step.metrics]
    ]


def _milliseconds(seconds: float | None) -> str:
    return "-" if seconds is None else f"{number(seconds * 1000, 'ms')} ms"


def _keyed(found: RampResult, step: Step, result: Result) -> list[Group]:
    name = _name(found, step)
    return [
        msgspec.structs.replace(
            one,
            title=f"{step.found.plan.load}: {one.title}" if place else str(step.found.plan.load),
            figures=[msgspec.structs.replace(each, key=f"{name}/{each.key}") for each in one.figures],
            detail=True,
        )
        for place, one in enumerate(result.groups)
    ]


def _overload(result: Result) -> list[Remark]:
    # That an endpoint turns requests away is what a ramp is for to find; of one load it refuses the figures.
    return [remark for remark in result.refusals if remark.code == TURNED_AWAY]


def _of_steps(remarks: Iterable[tuple[Step, Remark]]) -> list[Remark]:
    """What is said of several steps is said once, with the first one's numbers where only those differ."""
    said: dict[tuple[str, str], list[tuple[str, str]]] = {}
    for step, remark in remarks:
        same = "" if remark.code in _ROUTINE else remark.text
        said.setdefault((remark.code, same), []).append((f"{step.level:g}", remark.text))
    return [_at_levels(code, of) for (code, _), of in said.items()]


def _at_levels(code: str, said: Sequence[tuple[str, str]]) -> Remark:
    first = said[0][1]
    levels = ", ".join(level for level, text in said if text == first)
    others = ", ".join(level for level, text in said if text != first)
    return Remark(code=code, text=f"At {levels}: {first}{f' Likewise at {others}.' if others else ''}")


def _told(found: RampResult) -> str:
    knee = found.knee()
    if knee.index is None:
        return f"No knee was found: {knee.why}."
    return f"The knee is at {found.whole[knee.index].found.plan.load}: {knee.why}."


def _knee(found: RampResult) -> list[Figure]:
    knee = found.knee()
    if knee.index is None:
        return []
    point = found.whole[knee.index].point
    level = "requests/s" if found.ramp.rates else "streams"
    latency = None if point.latency_s is None else point.latency_s * 1000
    return [
        Figure(key="knee/level", name=level, unit="", found=point.level, which_is_better=Better.MORE),
        Figure(
            key="knee/output_tokens_per_s",
            name=_THROUGHPUT,
            unit="",
            found=point.throughput,
            which_is_better=Better.MORE,
        ),
        Figure(key="knee/e2el_mean_ms", name="E2EL, mean", unit="ms", found=latency),
    ]


def _plot(found: RampResult) -> Plot:
    knee = found.knee()
    marks = {} if knee.index is None else {"knee": found.whole[knee.index].point.throughput}
    steps = [step for step in found.whole if step.metrics.completed]
    lines = [
        _line(steps, "E2EL, mean", lambda metrics: metrics.e2el.mean if metrics.e2el else None),
        _line(steps, "TTFT, p50", lambda metrics: metrics.ttft.p50 if metrics.ttft else None),
        _line(steps, "TTFT, p90", lambda metrics: _p90(metrics.ttft)),
        _line(steps, "TTFT, p99", lambda metrics: _p99(metrics.ttft)),
    ]
    return Plot(
        key="ramp/throughput_latency",
        title="Throughput against latency",
        kind="curve",
        x=Axis(name="throughput", unit=_THROUGHPUT),
        y=Axis(name="latency", unit="ms"),
        lines=[line for line in lines if line.x],
        marks=marks,
    )


def _p90(summary: Summary | None) -> float | None:
    return summary.p90 if summary and summary.count >= least_samples(90) else None


def _p99(summary: Summary | None) -> float | None:
    return summary.p99 if summary and summary.count >= least_samples(99) else None


def _line(steps: Sequence[Step], name: str, latency: Callable[[ServingMetrics], float | None]) -> Line:
    seen = [(step.point.throughput, latency(step.metrics)) for step in steps]
    points = [(throughput, seconds * 1000) for throughput, seconds in seen if seconds is not None]
    return Line(name=name, x=[x for x, _ in points], y=[y for _, y in points])
