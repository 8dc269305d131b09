"""Who wants one model, and how far the one load on their behalf is. Pure state of the scheduler.

Owns the line of waiters, the single load and the cool-down of one model; knows no other model, no device.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import StrEnum

from runtime.events import Need
from runtime.placement import Offer
from runtime.progress import QUEUED, LoadProgress


class Stage(StrEnum):
    """Where a load is: on its way to the disk, waiting for memory, or starting an engine."""

    PREPARING = "preparing"
    PLACING = "placing"
    STARTING = "starting"


@dataclass(frozen=True, slots=True)
class Waiter:
    """One who waits; see `runtime.events.Wanted`."""

    id: str
    deadline: float
    need: Need
    share: str = ""
    since: float = 0.0


@dataclass(slots=True)
class Load:
    """The one load of a model.

    Attributes:
        number: its place among all loads of the node: earlier ones get memory first.
        wanted_until: kept alive until then though nobody waits: a waiter ran out of time and will ask again.
    """

    id: str
    number: int
    stage: Stage = Stage.PREPARING
    replica_id: str | None = None
    progress: LoadProgress = QUEUED
    wanted_until: float = 0.0


@dataclass(frozen=True, slots=True)
class CooldownRule:
    """How long a model that failed is left alone, in seconds: doubling from `first_s` up to `most_s`.

    A replica that had been up for `stable_s` starts the count anew when it dies.
    """

    first_s: float = 5.0
    most_s: float = 300.0
    stable_s: float = 60.0

    def after(self, failures: int) -> float:
        """Seconds to wait after so many failures in a row."""
        return min(self.most_s, self.first_s * 2.0 ** min(failures - 1, 32)) if failures > 0 else 0.0


@dataclass(slots=True)
class ModelDemand:
    """Everything the scheduler remembers about one model; `waiters` is in order of arrival.

    `serving` has the ids of the replicas that take requests; `offers` what was last found of ways to run it.
    """

    model_id: str
    waiters: dict[str, Waiter] = field(default_factory=dict)
    load: Load | None = None
    serving: list[str] = field(default_factory=list)
    offers: tuple[Offer, ...] = ()
    failures: int = 0
    cool_until: float = 0.0
    error: str = ""

    @property
    def is_ready(self) -> bool:
        """Whether a replica takes requests."""
        return bool(self.serving)

    def no_longer(self, replica_id: str) -> None:
        """That replica takes no more requests, if it did."""
        if replica_id in self.serving:
            self.serving.remove(replica_id)

    def waiting_for_slots(self) -> int:
        """How many stand in line to be answered."""
        return sum(waiter.need is Need.SLOT for waiter in self.waiters.values())

    def beyond_disk(self) -> bool:
        """Whether somebody needs more than the weights on the disk."""
        return any(waiter.need is not Need.DISK for waiter in self.waiters.values())

    def on_disk(self) -> bool:
        """Whether a load or a replica proves that the weights are on the disk."""
        return self.is_ready or (self.load is not None and self.load.stage is not Stage.PREPARING)

    def load_is_wanted(self, now: float) -> bool:
        """Whether the load has anybody to be done for."""
        if self.load is None:
            return False
        waited_for = bool(self.waiters) if self.load.stage is Stage.PREPARING else self.beyond_disk()
        return waited_for or now < self.load.wanted_until

    def expired(self, now: float) -> list[Waiter]:
        """Those whose time is up."""
        return [waiter for waiter in self.waiters.values() if waiter.deadline <= now]

    def deadlines(self) -> Iterator[float]:
        """Every moment at which something about the waiters or the load changes by itself."""
        yield from (waiter.deadline for waiter in self.waiters.values())
        if self.load is not None and not self.waiters:
            yield self.load.wanted_until

    def load_failed(self, reason: str, now: float, rule: CooldownRule) -> float:
        """Note a failed load; returns the seconds until the next is tried."""
        self.failures += 1
        self.error = reason
        self.cool_until = now + rule.after(self.failures)
        return self.cool_until - now

    def replica_died(self, reason: str, *, up_s: float, now: float, rule: CooldownRule) -> float:
        """Note a crash; the first is forgiven at once, since the next request needs the model."""
        self.failures = 1 if up_s >= rule.stable_s else self.failures + 1
        self.error = reason
        self.cool_until = now + rule.after(self.failures - 1)
        return self.cool_until - now

    def succeeded(self) -> None:
        """A replica ended because it was told to: whatever failed before is past."""
        self.failures = 0
        self.cool_until = 0.0
        self.error = ""
