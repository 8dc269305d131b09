"""What was measured of one node under several loads, read from results of `porten-bench serving`.

Owns what a point is and where a result has it. Pure: documents in, points out. Must not know the model that
is made of them.
"""

from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import msgspec

from benchmarks.errors import ResultUnreadable, SettingInvalid
from benchmarks.figures.doubts import Doubt
from benchmarks.reports.result import Result

LATENCIES: Final = ("ttft", "itl", "tpot", "e2el")
_SHARES: Final = {
    "minimum": 0.0,
    "p50": 0.5,
    "p90": 0.9,
    "p95": 0.95,
    "p99": 0.99,
    "p999": 0.999,
    "maximum": 1.0,
}


@dataclass(frozen=True, slots=True)
class Spread:
    """A distribution of seconds by some of its quantiles, straight between them.

    Attributes:
        shares: rising from 0 to 1.
        seconds: as many, rising.
    """

    shares: tuple[float, ...]
    seconds: tuple[float, ...]

    def at(self, share: float) -> float:
        """The seconds below which that share lies."""
        return _straight(self.shares, self.seconds, share)

    def within(self, seconds: float) -> float:
        """The share that takes at most so long."""
        if seconds >= self.seconds[-1]:
            return 1.0
        if seconds < self.seconds[0]:
            return 0.0
        return _straight(self.seconds, self.shares, seconds)

    def scaled(self, factor: float) -> "Spread":
        """So many times as long."""
        return Spread(self.shares, tuple(each * factor for each in self.seconds))


@dataclass(frozen=True, slots=True)
class Point:
    """One node under one load.

    Attributes:
        name: of the load, for people.
        concurrency: requests in the node at once, on average; of an open loop by Little's law.
        rate: requests a second that it answered.
        latencies: by ``LATENCIES``; those that were measured.
        prompt_tokens: of a request, on average, as the server counts them.
        output_tokens: the same of an answer.
        open_loop: whether requests came when they were due, and not one after the other.
    """

    name: str
    concurrency: float
    rate: float
    latencies: Mapping[str, Spread]
    prompt_tokens: float
    output_tokens: float
    open_loop: bool


class _Seen(msgspec.Struct):
    """What is read of a step's details; milliseconds."""

    completed: int
    failed: int
    prompt_tokens: int
    output_tokens: int
    requests_per_s: float
    ttft_ms: dict[str, float] | None = None
    itl_ms: dict[str, float] | None = None
    tpot_ms: dict[str, float] | None = None
    e2el_ms: dict[str, float] | None = None


class _Step(msgspec.Struct):
    metrics: _Seen
    level: float | None = None


class _Details(msgspec.Struct):
    metrics: _Seen | None = None
    steps: list[_Step] = []


class _Load(msgspec.Struct):
    kind: str
    concurrency: float | None = None
    rate: float | None = None
    steps: str = ""


def read_points(results: Sequence[Result]) -> list[Point]:
    """The points of some results: single loads, ramps, or both; by rising concurrency.

    Raises:
        ResultUnreadable: one of them is of another command, or lacks what is needed.
    """
    points = [point for each in results for point in _points(each)]
    return sorted(points, key=lambda point: point.concurrency)


def flaws(results: Sequence[tuple[str, Result]]) -> Iterator[Doubt]:
    """What makes measured loads, and so all that is told of them, hard to believe; each with its file."""
    for name, found in results:
        for refusal in found.refusals:
            yield Doubt(refusal.code, f"{name} is not to be believed: {refusal.text}", refuses=True)
        if found.interrupted:
            yield Doubt("interrupted", f"{name} was interrupted: its last load was measured in part only.")
    if len({repr(_asked(each)) for _, each in results}) > 1:
        text = "The results are of different targets or requests: this is no one node under several loads."
        yield Doubt("other_settings", text)


def _asked(found: Result) -> list[object]:
    """Of whom and what was asked, but for the seed, which is drawn anew for each run."""
    workload = found.settings.get("workload")
    kept = {**workload, "seed": None} if isinstance(workload, dict) else workload
    return [found.settings.get("target"), kept]


def _points(found: Result) -> Iterator[Point]:
    if found.benchmark != "serving":
        raise ResultUnreadable(
            f"capacity reads results of `porten-bench serving`, not of {found.benchmark!r}"
        )
    try:
        details = msgspec.convert(found.details, _Details)
        load = msgspec.convert(found.settings.get("load"), _Load)
    except msgspec.ValidationError as error:
        raise ResultUnreadable(f"the result lacks what capacity reads: {error}") from error
    if details.metrics is not None:
        level = load.rate if load.kind == "open" else load.concurrency
        yield from _point(details.metrics, level or 0.0, open_loop=load.kind == "open")
    for step in details.steps:
        yield from _point(step.metrics, step.level or 0.0, open_loop=load.steps.startswith("rate"))


def _point(seen: _Seen, level: float, *, open_loop: bool) -> Iterator[Point]:
    if not seen.completed or not seen.e2el_ms:
        return
    if seen.failed:
        raise SettingInvalid(
            f"{seen.failed} requests failed at {level:g}: what that load costs cannot be told; leave it out"
        )
    measured = {name: getattr(seen, f"{name}_ms") for name in LATENCIES}
    if (
        "mean" not in seen.e2el_ms
        or not all(_is_spread(told) for told in measured.values() if told)
        or not seen.requests_per_s > 0
    ):
        raise ResultUnreadable(f"the result is damaged: its latencies at {level:g} are none")
    yield Point(
        name=f"{level:g} a second" if open_loop else f"{level:g} at a time",
        concurrency=seen.requests_per_s * seen.e2el_ms["mean"] / 1000 if open_loop else level,
        rate=seen.requests_per_s,
        latencies={name: _spread(each) for name, each in measured.items() if each},
        prompt_tokens=seen.prompt_tokens / seen.completed,
        output_tokens=seen.output_tokens / seen.completed,
        open_loop=open_loop,
    )


def _is_spread(told: Mapping[str, float]) -> bool:
    """Whether there is anything to be straight between, none below zero, and none below one that is lower."""
    seconds = [told[name] for name in _SHARES if name in told]
    return len(seconds) > 1 and seconds[0] >= 0 and seconds == sorted(seconds)


def _spread(told: Mapping[str, float]) -> Spread:
    known = [(share, told[name] / 1000) for name, share in _SHARES.items() if name in told]
    shares, seconds = zip(*known, strict=True)
    return Spread(shares, seconds)


def _straight(xs: Sequence[float], ys: Sequence[float], x: float) -> float:
    """Between the two neighbours; beyond the ends, the end."""
    after = bisect_left(xs, x)
    if after == 0:
        return ys[0]
    if after == len(xs):
        return ys[-1]
    width = xs[after] - xs[after - 1]
    part = (x - xs[after - 1]) / width if width > 0 else 1.0
    return ys[after - 1] + (ys[after] - ys[after - 1]) * part
