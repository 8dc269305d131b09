"""A node that batches, simulated: what capacity is told of it, and the truth it must come to.

Each step gives every running request one token and takes longer the more of them there are; a request that
begins adds its prompt to the step. Requests beyond the slots stand in line. They come by chance, or so many
are kept in flight; lengths are drawn.
"""

import random
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from math import inf

from benchmarks.figures.statistics import percentile, summarise


@dataclass(frozen=True)
class Node:
    slots: int = 8
    step_s: float = 0.02
    each_s: float = 0.002
    prompt_s: float = 0.03
    tokens: int = 40


@dataclass
class Seen:
    """What one load came to."""

    rate: float
    ttft: list[float] = field(default_factory=list)
    gaps: list[float] = field(default_factory=list)
    e2el: list[float] = field(default_factory=list)
    tokens: int = 0

    def within(self, latency: str, seconds: float) -> float:
        values = getattr(self, latency)
        return sum(value <= seconds for value in values) / len(values)

    def details(self) -> dict[str, object]:
        """As `porten-bench serving` writes them."""
        return {
            "completed": len(self.e2el),
            "failed": 0,
            "prompt_tokens": 32 * len(self.e2el),
            "output_tokens": self.tokens,
            "requests_per_s": self.rate,
            "ttft_ms": milliseconds(self.ttft),
            "itl_ms": milliseconds(self.gaps),
            "tpot_ms": milliseconds(self.gaps),
            "e2el_ms": milliseconds(self.e2el),
        }


def milliseconds(values: list[float]) -> dict[str, float]:
    told = summarise(values)
    assert told is not None
    names = ("mean", "p50", "p90", "p99", "minimum", "maximum")
    return {name: getattr(told, name) * 1000 for name in names} | {"p95": percentile(values, 95) * 1000}


@dataclass
class Job:
    came_at: float
    left: int
    last_at: float | None = None


def simulate(node: Node, *, requests: int, rate: float = 0.0, streams: int = 0, seed: int = 1) -> Seen:
    """An open loop at that rate, or a closed one with so many streams."""
    chance = random.Random(seed)
    arrivals = poisson(chance, rate) if rate else iter([0.0] * streams)
    return Simulation(node, chance, arrivals, closed=not rate).run(requests)


class Simulation:
    def __init__(self, node: Node, chance: random.Random, arrivals: Iterator[float], *, closed: bool) -> None:
        self.node, self.chance, self.arrivals, self.closed = node, chance, arrivals, closed
        self.line, self.running = deque[Job](), list[Job]()
        self.now, self.due = 0.0, next(arrivals, inf)
        self.seen = Seen(0.0)

    def run(self, requests: int) -> Seen:
        warm = requests // 10
        while len(self.seen.e2el) < requests:
            begun = self.admit()
            if not self.running:
                self.now = self.due
                continue
            self.now += self.node.step_s + self.node.each_s * len(self.running) + self.node.prompt_s * begun
            for job in self.running:
                self.advance(job, counts=len(self.seen.e2el) >= warm)
            for job in [job for job in self.running if not job.left]:
                self.end(job)
        self.seen.rate = len(self.seen.e2el) / self.now
        return self.seen

    def admit(self) -> int:
        """Those that have come join the line, and its first the batch; how many began."""
        while self.due <= self.now:
            self.line.append(Job(self.due, length(self.chance, self.node)))
            self.due = next(self.arrivals, inf)
        before = len(self.running)
        while self.line and len(self.running) < self.node.slots:
            self.running.append(self.line.popleft())
        return len(self.running) - before

    def advance(self, job: Job, *, counts: bool) -> None:
        """One token."""
        first = job.last_at is None
        since = job.came_at if job.last_at is None else job.last_at
        if counts or first:
            (self.seen.ttft if first else self.seen.gaps).append(self.now - since)
        job.left -= 1
        job.last_at = self.now
        self.seen.tokens += 1

    def end(self, job: Job) -> None:
        self.running.remove(job)
        self.seen.e2el.append(self.now - job.came_at)
        if self.closed:
            self.line.append(Job(self.now, length(self.chance, self.node)))


def poisson(chance: random.Random, rate: float) -> Iterator[float]:
    moment = 0.0
    while True:
        moment += chance.expovariate(rate)
        yield moment


def length(chance: random.Random, node: Node) -> int:
    return max(2, round(chance.expovariate(1 / node.tokens)))


def true_most(node: Node, objectives: dict[str, float], share: float, *, requests: int = 4000) -> float:
    """The largest rate at which the simulated node itself keeps the objectives."""
    names = {"ttft": "ttft", "itl": "gaps", "e2el": "e2el"}
    low, high = 0.0, simulate(node, requests=requests, streams=4 * node.slots).rate
    for _ in range(7):
        middle = (low + high) / 2
        seen = simulate(node, requests=requests, rate=middle, seed=7)
        kept = all(seen.within(names[name], limit) >= share for name, limit in objectives.items())
        low, high = (middle, high) if kept else (low, middle)
    return low
