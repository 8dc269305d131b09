"""When the node gives its machine back to its owner, and when it takes up work again.

::

    serving ──YIELD──▶ paused ──DRAIN──▶ draining ──EMPTY──▶ away
       ▲                 │                  │   ▲             │ │
       └─────RETURN──────┴──────────────────┘   └────DRAIN────┘ │
       └─────RETURN─────────────────────────────────────────────┘

Paused: nothing new begins, what runs goes on, models stay in memory. Draining: models are unloaded, each once
it has answered. Away: nothing is loaded; what gets loaded all the same is drained again.

Pure: readings and the time come in, steps go out; nothing here reads a clock, a sensor or a file.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum


class Stage(StrEnum):
    """How far the machine is given back."""

    SERVING = "serving"
    PAUSED = "paused"
    DRAINING = "draining"
    AWAY = "away"


class Step(StrEnum):
    """What moves the stage on."""

    YIELD = "yield"
    DRAIN = "drain"
    EMPTY = "empty"
    RETURN = "return"


TRANSITIONS: dict[tuple[Stage, Step], Stage] = {
    (Stage.SERVING, Step.YIELD): Stage.PAUSED,
    (Stage.PAUSED, Step.DRAIN): Stage.DRAINING,
    (Stage.DRAINING, Step.EMPTY): Stage.AWAY,
    (Stage.AWAY, Step.DRAIN): Stage.DRAINING,
    (Stage.PAUSED, Step.RETURN): Stage.SERVING,
    (Stage.DRAINING, Step.RETURN): Stage.SERVING,
    (Stage.AWAY, Step.RETURN): Stage.SERVING,
}


class Cause(StrEnum):
    """Why it yields, the owner's own word first."""

    OWNER = "owner"
    SCHEDULE = "schedule"
    BATTERY = "battery"
    HEAT = "heat"
    GPU = "gpu"
    CPU = "cpu"


@dataclass(frozen=True, slots=True)
class Patience:
    """How long a cause must be seen before it counts, and be gone before it does not count any more.

    Attributes:
        enter_s: seconds it must hold.
        leave_s: seconds it must be away.
        keep_loaded_s: seconds of pause before models are unloaded: none where memory is what is wanted.
    """

    enter_s: float
    leave_s: float
    keep_loaded_s: float


PATIENCE: Mapping[Cause, Patience] = {
    Cause.OWNER: Patience(0, 0, 0),
    Cause.SCHEDULE: Patience(0, 0, 0),
    Cause.BATTERY: Patience(0, 30, 60),
    Cause.HEAT: Patience(10, 60, 30),
    Cause.GPU: Patience(5, 60, 0),
    Cause.CPU: Patience(30, 60, 60),
}
_REASONS: Mapping[Cause, str] = {
    Cause.OWNER: "paused by its owner",
    Cause.SCHEDULE: "outside its hours",
    Cause.BATTERY: "on battery",
    Cause.HEAT: "the machine is too hot",
    Cause.GPU: "another program needs the GPU's memory",
    Cause.CPU: "other programs keep the CPU busy",
}
HOT_DEGREES = 3.0
COOL_DEGREES = 13.0
"""Degrees below a sensor's critical mark at which the node yields, and from which on it may return."""
CALM_SHARE = 0.7
"""The CPU is calm again below this share of the owner's limit."""


@dataclass(frozen=True, slots=True)
class GpuReading:
    """One GPU in bytes: `room` is what others and the reserve leave, `reserved` what our engines have."""

    id: str
    room: int
    reserved: int


@dataclass(frozen=True, slots=True)
class Reading:
    """What was seen at one moment; None where the machine does not tell.

    Attributes:
        paused: the owner's pause stands.
        off_hours: the schedule lets the node rest.
        on_battery: no mains.
        degrees_left: degrees that the hottest sensor has left to its critical mark.
        gpus: those whose use by others is known.
        cpu_others: share of the CPU that is busy with others' work.
        loaded: an engine runs.
    """

    paused: bool = False
    off_hours: bool = False
    on_battery: bool = False
    degrees_left: float | None = None
    gpus: tuple[GpuReading, ...] = ()
    cpu_others: float | None = None
    loaded: bool = False


@dataclass(slots=True)
class _Watched:
    """One cause: whether it counts, and since when the opposite is seen."""

    counts: bool = False
    doubted_since: float | None = None

    def look(self, *, seen: bool, now: float, patience: Patience) -> None:
        if seen == self.counts:
            self.doubted_since = None
            return
        if self.doubted_since is None:
            self.doubted_since = now
        if now - self.doubted_since >= (patience.enter_s if seen else patience.leave_s):
            self.counts, self.doubted_since = seen, None


@dataclass(slots=True)
class Yielding:
    """The decision. `look` is called with every reading, in the order of time.

    Attributes:
        cpu_limit: share of the CPU above which others' work makes the node yield; None never does.
    """

    cpu_limit: float | None = None
    stage: Stage = Stage.SERVING
    _watched: dict[Cause, _Watched] = field(default_factory=lambda: {cause: _Watched() for cause in Cause})
    _displaced: dict[str, int] = field(default_factory=dict)
    _paused_at: float = 0.0

    @property
    def causes(self) -> tuple[Cause, ...]:
        """What keeps it from serving now."""
        return tuple(cause for cause, watched in self._watched.items() if watched.counts)

    @property
    def reason(self) -> str | None:
        """The same in words; None while it serves."""
        return "; ".join(_REASONS[cause] for cause in self.causes) or None

    def look(self, reading: Reading, now: float) -> tuple[Step, ...]:
        """Take a reading in; returns the steps taken, in order."""
        for cause, watched in self._watched.items():
            watched.look(seen=self._sees(cause, reading), now=now, patience=PATIENCE[cause])
        if Cause.GPU not in self.causes:
            self._displaced = {gpu.id: gpu.reserved for gpu in reading.gpus}
        steps: list[Step] = []
        while (step := self._due(reading, now)) is not None:
            self._take(step, now)
            steps.append(step)
        return tuple(steps)

    def _sees(self, cause: Cause, reading: Reading) -> bool:
        """Whether the cause is there; one that counts already is let go at a lower mark."""
        counts = self._watched[cause].counts
        match cause:
            case Cause.OWNER:
                return reading.paused
            case Cause.SCHEDULE:
                return reading.off_hours
            case Cause.BATTERY:
                return reading.on_battery
            case Cause.HEAT:
                mark = COOL_DEGREES if counts else HOT_DEGREES
                return reading.degrees_left is not None and reading.degrees_left <= mark
            case Cause.GPU:
                return any(self._short(gpu, counts=counts) for gpu in reading.gpus)
            case Cause.CPU:
                return self._is_busy(reading.cpu_others, counts=counts)

    def _short(self, gpu: GpuReading, *, counts: bool) -> bool:
        """Too little room for what is loaded; once yielded, for what had to go."""
        wanted = max(gpu.reserved, self._displaced.get(gpu.id, 0)) if counts else gpu.reserved
        return wanted > gpu.room

    def _is_busy(self, others: float | None, *, counts: bool) -> bool:
        if others is None or self.cpu_limit is None:
            return False
        return others > self.cpu_limit * (CALM_SHARE if counts else 1)

    def _due(self, reading: Reading, now: float) -> Step | None:
        if not self.causes:
            return None if self.stage is Stage.SERVING else Step.RETURN
        match self.stage:
            case Stage.SERVING:
                return Step.YIELD
            case Stage.PAUSED:
                kept = min(PATIENCE[cause].keep_loaded_s for cause in self.causes)
                return Step.DRAIN if now - self._paused_at >= kept else None
            case Stage.DRAINING:
                return None if reading.loaded else Step.EMPTY
            case Stage.AWAY:
                return Step.DRAIN if reading.loaded else None

    def _take(self, step: Step, now: float) -> None:
        self.stage = TRANSITIONS[self.stage, step]
        if step is Step.YIELD:
            self._paused_at = now
