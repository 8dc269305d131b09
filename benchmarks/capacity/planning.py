"""From a demand to a number of nodes, and how far the model can be trusted; pure.

The demand is shared evenly among nodes that are each a queue of their own. A router that sends each request
to the least busy node does better than that, so that the number is on the safe side.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import ceil, inf, isfinite
from typing import Final

from benchmarks.capacity.model import Most, NodeModel, most, with_longer
from benchmarks.capacity.points import LATENCIES, Point
from benchmarks.errors import SettingInvalid
from benchmarks.figures.goodput import Slo
from benchmarks.figures.statistics import median

_ALIKE: Final = 0.1
"""Lengths that differ by less from the measured ones count as measured."""
_LEAST_POINTS: Final = 3
_STILL_RISING: Final = 0.05


@dataclass(frozen=True, slots=True)
class Demand:
    """What is to be carried.

    Attributes:
        rate: requests a second, of all together.
        prompt_tokens: of a request, on average; none: as measured.
        output_tokens: of an answer, on average; none: as measured.
        objectives: seconds, by latency.
        share: of the requests that are to keep each objective, 0 to 1.
    """

    rate: float
    objectives: Mapping[str, float]
    share: float = 0.99
    prompt_tokens: float | None = None
    output_tokens: float | None = None


@dataclass(frozen=True, slots=True)
class Miss:
    """How far off a point was told by the others: what it was, what was told, as a share of it."""

    of: str
    point: str
    relative: float


@dataclass(frozen=True, slots=True)
class CapacityPlan:
    """How many nodes, and why.

    Attributes:
        points: of one node, as the model has them.
        nodes: with the margin; none where no number of them keeps the objectives.
        without_margin: if the model were exact.
        each: what one node takes.
        load: of each of the nodes, requests a second.
        expected: the latencies within which the wanted share of requests stays then, in seconds.
        most: requests a second that one node answers at all.
        full_at: requests in it from which on it answers no more.
        misses: of the cross-validation.
        guessed: what the answer takes for granted without its having been measured, in words.
    """

    points: tuple[Point, ...]
    nodes: int | None
    without_margin: int | None
    each: Most
    load: float | None
    expected: dict[str, float]
    most: float
    full_at: int
    misses: tuple[Miss, ...]
    guessed: tuple[str, ...]

    def errors(self, of: str) -> list[float]:
        """The sizes of the misses of one quantity."""
        return [abs(miss.relative) for miss in self.misses if miss.of == of]


def plan_capacity(
    points: Sequence[Point], demand: Demand, *, margin: float, extrapolate: bool = False
) -> CapacityPlan:
    """How many nodes like the measured one carry the demand.

    Args:
        points: of one node.
        demand: what is to be carried.
        margin: the share of a node's load that is left unused for what the model does not know.
        extrapolate: whether lengths that were not measured may be guessed at.

    Raises:
        SettingInvalid: too little was measured for an answer; the message says what to measure.
    """
    usable = _checked(points, demand)
    misses = cross_validate(usable, tuple(demand.objectives) or ("e2el",), demand.share)
    usable, guessed = _of_lengths(usable, demand, extrapolate=extrapolate)
    model = NodeModel(usable)
    found = most(model, demand.objectives, demand.share)
    nodes, without = (_nodes(demand.rate, found.load * kept) for kept in (1 - margin, 1.0))
    load = demand.rate / nodes if nodes else None
    expected = (
        {}
        if load is None
        else {
            name: model.latency(name, demand.share, load) for name in LATENCIES if name in usable[0].latencies
        }
    )
    return CapacityPlan(
        points=usable,
        nodes=nodes,
        without_margin=without,
        each=found,
        load=load,
        expected=expected,
        most=model.limit,
        full_at=model.full_at,
        misses=misses,
        guessed=(*guessed, *_edges(usable, model)),
    )


def _nodes(rate: float, each: float) -> int | None:
    return ceil(rate / each - 1e-9) if each > 0 and isfinite(rate / each) else None


def _checked(points: Sequence[Point], demand: Demand) -> tuple[Point, ...]:
    by_concurrency = {round(point.concurrency, 6): point for point in points if point.concurrency > 0}
    usable = tuple(by_concurrency[key] for key in sorted(by_concurrency))
    if len(usable) < _LEAST_POINTS:
        raise SettingInvalid(
            f"{len(usable)} loads say too little about a node: measure a ramp, such as "
            "`porten-bench serving --ramp 1,2,4,8,16 ...`"
        )
    for point in usable:
        if missing := [name for name in demand.objectives if name not in point.latencies]:
            raise SettingInvalid(f"{missing[0]} was not measured at {point.name}: answers were not streamed")
    return usable


def _of_lengths(
    points: tuple[Point, ...], demand: Demand, *, extrapolate: bool
) -> tuple[tuple[Point, ...], tuple[str, ...]]:
    factors, told = [], []
    for name, wanted in (("prompt", demand.prompt_tokens), ("output", demand.output_tokens)):
        measured = median([getattr(point, f"{name}_tokens") for point in points])
        factor = 1.0 if wanted is None else wanted / measured if measured else inf
        if abs(factor - 1) > _ALIKE:
            told.append(f"{wanted:g} {name} tokens, where {measured:.0f} were measured")
        else:
            factor = 1.0
        factors.append(factor)
    if not told:
        return points, ()
    if not extrapolate or inf in factors:
        raise SettingInvalid(
            f"{' and '.join(told)}: measure with the lengths that are asked for, or have them guessed at: "
            "--extrapolate"
        )
    return with_longer(points, *factors), (f"Guessed by tokens alone: {' and '.join(told)}.",)


def _edges(points: Sequence[Point], model: NodeModel) -> list[str]:
    """What lies beyond the measured loads."""
    first, before, last = points[0], points[-2], points[-1]
    told = []
    if first.concurrency >= 1.5:
        told.append(f"Nothing was measured below {first.name}: emptier nodes are taken for no faster.")
    if last.rate > before.rate * (1 + _STILL_RISING):
        told.append(
            f"At {last.name}, the most that was measured, the node still answered more than before: it may "
            f"take more than {model.limit:.3g} requests/s, which nothing here counts on."
        )
    return told


def cross_validate(points: Sequence[Point], latencies: Sequence[str], share: float) -> tuple[Miss, ...]:
    """Each inner point told by all others: how far from what was measured.

    The first and the last point are told by nobody: beyond the others, nothing is told at all.
    """
    misses = []
    for place in range(1, len(points) - 1):
        left_out = points[place]
        model = NodeModel((*points[:place], *points[place + 1 :]))
        misses += [
            Miss(of, left_out.name, told / true - 1)
            for of, true, told in _told(model, left_out, latencies, share)
            if true > 0 and isfinite(told)
        ]
    return tuple(misses)


def _told(
    model: NodeModel, point: Point, latencies: Sequence[str], share: float
) -> list[tuple[str, float, float]]:
    """What, as it was, as the model tells it."""
    if point.open_loop:
        told = [(name, model.latency(name, share, point.rate)) for name in latencies]
    else:
        count = max(1, round(point.concurrency))
        told = [(name, model.spread(name, count).at(share)) for name in latencies]
    of_latencies = [(name, point.latencies[name].at(share), seconds) for name, seconds in told]
    return [("throughput", point.rate, model.rate(point.concurrency)), *of_latencies]


def objectives(slos: Sequence[Slo]) -> dict[str, float]:
    """Seconds by latency, of objectives as `porten-bench serving` has them.

    Raises:
        SettingInvalid: one is of a share of each request's gaps, of which the model knows nothing.
    """
    for slo in slos:
        if slo.percent != 100:
            raise SettingInvalid(
                f"--slo {slo}: whole requests are what is known of a node here; write itl=..., and with "
                "--percentile how many of them are to keep it"
            )
    return {slo.metric: slo.limit_s for slo in slos}
