"""What an engine did to its answers, by its own record, against what the meter said of them; pure.

Owns the comparison. Must not know processes or how a result is shown.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from benchmarks.figures.metrics import ServingMetrics
from benchmarks.figures.statistics import Summary, summarise
from benchmarks.stacks.scripted_engine import Record

STATISTICS = ("mean", "p50", "p99")


@dataclass(frozen=True, slots=True)
class Injected:
    """Latencies by the engine's record, in seconds, defined as the meter's are.

    They begin when the engine had the request. What the way adds is the difference.
    """

    ttft: Summary | None
    itl: Summary | None
    tpot: Summary | None
    e2el: Summary | None

    @classmethod
    def by(cls, records: Sequence[Record]) -> "Injected":
        """From the records of complete answers."""
        told = [record for record in records if record.sent_at]
        gaps = [later - earlier for record in told for earlier, later in pairwise(record.sent_at)]
        return cls(
            ttft=summarise([record.sent_at[0] - record.received_at for record in told]),
            itl=summarise(gaps),
            tpot=summarise([_pace(record.sent_at) for record in told if len(record.sent_at) > 1]),
            e2el=summarise([record.sent_at[-1] - record.received_at for record in told]),
        )


def _pace(moments: Sequence[float]) -> float:
    return (moments[-1] - moments[0]) / (len(moments) - 1)


@dataclass(frozen=True, slots=True)
class Difference:
    """One figure twice, in seconds."""

    latency: str
    statistic: str
    injected: float
    reported: float

    @property
    def error_s(self) -> float:
        """How far the report is off, either way."""
        return abs(self.reported - self.injected)

    @property
    def allowed_s(self) -> float:
        """2 % of what was injected, and a millisecond at least: that is what timers have."""
        return max(0.001, 0.02 * self.injected)


def differences(injected: Injected, reported: ServingMetrics) -> list[Difference]:
    """All figures of all latencies that both have."""
    found = []
    for latency in ("ttft", "itl", "tpot", "e2el"):
        here: Summary | None = getattr(injected, latency)
        there: Summary | None = getattr(reported, latency)
        if here is None or there is None:
            continue
        for statistic in STATISTICS:
            told = Difference(latency, statistic, getattr(here, statistic), getattr(there, statistic))
            found.append(told)
    return found
