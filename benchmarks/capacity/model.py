"""A node as a queue whose speed depends on how many requests are in it; pure.

The model is the flow-equivalent server of queueing theory (Chandy, Herzog, Woo: Parametric Analysis of
Queuing Networks, IBM Journal of Research and Development 1975; Lazowska and others: Quantitative System
Performance, 1984, chapter 8): with k requests in it a node answers X(k) a second, which is measured with k
requests kept in flight. Requests come by chance (Poisson), and the number in the node is a birth-death
chain with these rates. For nodes that share their speed among all in them, what comes of it does not depend
on how lengths are distributed (Kelly: Reversibility and Stochastic Networks, 1979). A request that finds k
- 1 others has the latencies measured with k in flight; above the most that was measured, nothing gets
faster and the rest waits in line.

Nothing is extrapolated: X and the latencies are straight between measured points.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import inf
from typing import Final

from benchmarks.capacity.points import Point, Spread

_GRAIN: Final = 1e-9
_MOST_STATES: Final = 5000
_NEAR_THE_LIMIT: Final = 0.98
_SATURATED: Final = 0.9
"""The share of the most that a node answers from which on it counts as full."""


@dataclass(frozen=True, slots=True)
class NodeModel:
    """One node, from its points by rising concurrency; at least one."""

    points: tuple[Point, ...]
    _spreads: dict[tuple[str, int], Spread] = field(default_factory=dict, compare=False, repr=False)

    @property
    def most_in_it(self) -> int:
        """How many requests at once were measured at most."""
        return max(1, round(self.points[-1].concurrency))

    @property
    def limit(self) -> float:
        """Requests a second at which a line grows without end."""
        return self.rate(self.most_in_it)

    @property
    def full_at(self) -> int:
        """With how many in it the node answers about as many as it ever does."""
        most = max(self.rate(count) for count in range(1, self.most_in_it + 1))
        return next(k for k in range(1, self.most_in_it + 1) if self.rate(k) >= _SATURATED * most)

    def rate(self, count: float) -> float:
        """Requests a second that are answered with so many in it."""
        first, last = self.points[0], self.points[-1]
        if count <= first.concurrency:
            return first.rate * count / first.concurrency
        if count >= last.concurrency:
            return last.rate
        before, after, part = self._around(count)
        # Straight in the time that one takes, not in the rate: below a node's slots that time is flat.
        took = _between(before.concurrency / before.rate, after.concurrency / after.rate, part)
        return count / took

    def spread(self, latency: str, count: int) -> Spread:
        """The latency with so many in it, up to the most that was measured."""
        key = latency, count
        if key not in self._spreads:
            self._spreads[key] = self._interpolated(latency, count)
        return self._spreads[key]

    def _interpolated(self, latency: str, count: float) -> Spread:
        if count <= self.points[0].concurrency:
            return self.points[0].latencies[latency]
        if count >= self.points[-1].concurrency:
            return self.points[-1].latencies[latency]
        before, after, part = self._around(count)
        low, high = before.latencies[latency], after.latencies[latency]
        shares = tuple(sorted({*low.shares, *high.shares}))
        return Spread(shares, tuple(_between(low.at(share), high.at(share), part) for share in shares))

    def _around(self, count: float) -> tuple[Point, Point, float]:
        after = next(i for i, point in enumerate(self.points) if point.concurrency >= count)
        low, high = self.points[after - 1], self.points[after]
        return low, high, (count - low.concurrency) / (high.concurrency - low.concurrency)

    def found(self, load: float) -> list[float]:
        """The chance that an arriving request is the first, second, ... in the node, at so many a second."""
        if load >= self.limit:
            return []
        chances, most = [1.0], 1.0
        for count in range(1, _MOST_STATES):
            chances.append(chances[-1] * load / self.rate(count))
            most = max(most, chances[-1])
            if count >= self.most_in_it and chances[-1] < _GRAIN * most:
                break
        total = sum(chances)
        return [chance / total for chance in chances]

    def within(self, latency: str, seconds: float, load: float) -> float:
        """The share of requests whose latency is at most so long, at so many requests a second."""
        return self._share(self.found(load), latency, seconds)

    def _share(self, found: Sequence[float], latency: str, seconds: float) -> float:
        chances = enumerate(found, 1)
        return sum(chance * self._within(latency, seconds, count) for count, chance in chances)

    def _within(self, latency: str, seconds: float, count: int) -> float:
        most = self.most_in_it
        if count <= most or latency in {"itl", "tpot"}:
            return self.spread(latency, min(count, most)).within(seconds)
        return self.spread(latency, most).within(seconds - (count - most) / self.limit)

    def latency(self, latency: str, share: float, load: float) -> float:
        """Seconds within which that share of requests stays; infinite where a line grows without end."""
        if load >= self.limit:
            return inf
        found = self.found(load)
        low, high = 0.0, self.points[-1].latencies[latency].seconds[-1]
        while self._share(found, latency, high) < share:
            low, high = high, 2 * high + _GRAIN
        for _ in range(30):
            middle = (low + high) / 2
            low, high = (low, middle) if self._share(found, latency, middle) >= share else (middle, high)
        return high


@dataclass(frozen=True, slots=True)
class Most:
    """What one node takes.

    Attributes:
        load: requests a second, as many as the objectives allow.
        limited_by: ``throughput``, ``slots`` (requests wait for one), or the latency at its objective.
    """

    load: float
    limited_by: str


def most(model: NodeModel, objectives: Mapping[str, float], share: float) -> Most:
    """The largest load at which that share of requests keeps each objective (seconds, by latency)."""

    def broken(load: float) -> list[str]:
        return [name for name, limit in objectives.items() if model.within(name, limit, load) < share]

    low, high = 0.0, model.limit
    if first := broken(_GRAIN):
        return Most(0.0, first[0])
    for _ in range(30):
        middle = (low + high) / 2
        low, high = (low, middle) if broken(middle) else (middle, high)
    over = broken(min(high, model.limit * (1 - _GRAIN)))
    if not over or low > model.limit * _NEAR_THE_LIMIT:
        return Most(low, "throughput")
    return Most(low, _reason(model, over[0], low, share))


def _reason(model: NodeModel, latency: str, load: float, share: float) -> str:
    """Who waits for a slot waits for the first token too: told apart by how often the node is found full."""
    if latency not in {"ttft", "e2el"}:
        return latency
    is_full = 1 - sum(model.found(load)[: model.full_at])
    return "slots" if is_full > 1 - share else latency


def _between(low: float, high: float, part: float) -> float:
    return low + (high - low) * part


def with_longer(points: Sequence[Point], prompt: float, output: float) -> tuple[Point, ...]:
    """The points as they may be with prompts and answers so many times as long: a guess by tokens alone.

    A request then takes as many times as much as the longer of the two factors says; its first token comes
    later by the prompt's.
    """
    longer = max(prompt, output)
    factors = {"ttft": prompt, "itl": 1.0, "tpot": 1.0, "e2el": longer}
    return tuple(
        Point(
            point.name,
            point.concurrency,
            point.rate / longer,
            {name: each.scaled(factors[name]) for name, each in point.latencies.items()},
            point.prompt_tokens * prompt,
            point.output_tokens * output,
            point.open_loop,
        )
        for point in points
    )
