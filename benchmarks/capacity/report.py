"""The result of `porten-bench capacity`.

Owns what is told of a plan, and when it is not to be believed.
"""

from collections.abc import Sequence
from typing import Final

from benchmarks.capacity.model import NodeModel
from benchmarks.capacity.planning import CapacityPlan, Demand
from benchmarks.capacity.points import LATENCIES
from benchmarks.figures.bounds import Better, Figure
from benchmarks.figures.doubts import Doubt
from benchmarks.figures.statistics import median
from benchmarks.reports.result import Axis, Group, Line, Made, Plot, Remark, Result, group

_PERCENT: Final = 100
_REASONS: Final = {
    "throughput": "what a node answers at all",
    "slots": "requests that wait for a slot",
    "ttft": "TTFT, though a slot is free: the prompts take that long",
    "itl": "ITL: the more requests at once, the slower each",
    "tpot": "TPOT: the more requests at once, the slower each",
    "e2el": "E2EL, though a slot is free",
}


def report(
    found: CapacityPlan,
    demand: Demand,
    margin: float,
    made: Made,
    *,
    flaws: Sequence[Doubt] = (),
) -> Result:
    """The result as it is shown and written; flaws are those of what was measured."""
    told = [(flaw.refuses, Remark(code=flaw.code, text=flaw.text)) for flaw in flaws]
    return Result(
        benchmark="capacity",
        made=made,
        settings={
            "rate": demand.rate,
            "prompt_tokens": demand.prompt_tokens,
            "output_tokens": demand.output_tokens,
            "slo_ms": {name: seconds * 1000 for name, seconds in demand.objectives.items()},
            "share": demand.share,
            "margin": margin,
        },
        groups=[*_answer(found, demand), _trust(found)],
        plots=[_plot(found, demand)],
        refusals=[*_refusals(found, demand), *(remark for refuses, remark in told if refuses)],
        remarks=[*_remarks(found, margin), *(remark for refuses, remark in told if not refuses)],
        details={
            "limited_by": found.each.limited_by,
            "points": [
                {"load": each.name, "concurrency": each.concurrency, "requests_per_s": each.rate}
                for each in found.points
            ],
            "misses": [
                {"of": miss.of, "load": miss.point, "percent": miss.relative * _PERCENT}
                for miss in found.misses
            ],
        },
    )


def _answer(found: CapacityPlan, demand: Demand) -> list[Group]:
    if found.nodes is None or found.load is None:
        return []
    plain = [
        ("nodes", "nodes", "", found.nodes, Better.LESS),
        ("nodes_without_margin", "nodes without the margin", "", found.without_margin, Better.LESS),
        ("node_requests_per_s", "one node takes within the objectives", "/s", found.each.load, Better.MORE),
        ("node_most_per_s", "one node answers at all", "/s", found.most, Better.MORE),
        ("node_full_at", "requests at once that fill it", "", found.full_at, Better.MORE),
        ("load_percent", "each is then loaded", "%", found.load / found.most * _PERCENT, Better.NEITHER),
    ]
    figures = [
        Figure(key=key, name=name, unit=unit, found=float(value or 0), which_is_better=better)
        for key, name, unit, value, better in plain
    ]
    percent = f"p{demand.share * _PERCENT:g}"
    figures += [
        Figure(
            key=f"expected/{name}_ms",
            name=f"{name.upper()} {percent} to be expected",
            unit="ms",
            found=seconds * 1000,
            via=f"<= {demand.objectives[name] * 1000:g} ms" if name in demand.objectives else "",
        )
        for name, seconds in found.expected.items()
    ]
    return [group(f"{demand.rate:g} requests/s", figures, sides=("", "objective"))]


def _trust(found: CapacityPlan) -> Group:
    figures = []
    for of in ("throughput", *LATENCIES):
        errors = found.errors(of)
        if errors:
            for key, name, value in (("median", "median", median(errors)), ("worst", "worst", max(errors))):
                figures.append(
                    Figure(
                        key=f"error/{of}_{key}_percent",
                        name=f"{of if of == 'throughput' else of.upper()}, {name} error",
                        unit="%",
                        found=value * _PERCENT,
                    )
                )
    return group("Each inner load told by the others", figures)


def _refusals(found: CapacityPlan, demand: Demand) -> list[Remark]:
    if found.nodes is not None:
        return []
    latency = found.each.limited_by
    text = (
        f"No number of nodes keeps {latency.upper()} within {demand.objectives[latency] * 1000:g} ms for "
        f"{demand.share * _PERCENT:g} % of the requests: the lowest load that was measured does not."
    )
    return [Remark(code="slo_unreachable", text=text)]


def _remarks(found: CapacityPlan, margin: float) -> list[Remark]:
    told = [Remark(code="extrapolated", text=each) for each in found.guessed]
    if found.nodes is not None:
        why = _REASONS[found.each.limited_by]
        told.append(Remark(code=f"limited_by_{found.each.limited_by}", text=f"One node is limited by {why}."))
    if not found.misses:
        told.append(Remark(code="not_validated", text="Too few loads to tell the model's error."))
    elif (worst := max(found.errors("throughput"), default=0.0)) > margin:
        text = (
            f"The model missed a load by {worst:.0%}, more than the margin: measure more loads about there."
        )
        told.append(Remark(code="margin_too_small", text=text))
    return told


def _plot(found: CapacityPlan, demand: Demand) -> Plot:
    model = NodeModel(found.points)
    loads = [model.limit * step / 20 for step in range(1, 20)]
    lines = [
        Line(
            name=f"{name.upper()}, told",
            x=loads,
            y=[model.latency(name, demand.share, x) * 1000 for x in loads],
        )
        for name in demand.objectives or ("e2el",)
    ]
    return Plot(
        key="capacity/latency",
        title="One node: latency by load",
        kind="curve",
        x=Axis(name="requests/s"),
        y=Axis(name=f"latency, p{demand.share * _PERCENT:g}", unit="ms", log=True),
        lines=lines,
    )
