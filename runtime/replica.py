"""One replica's life as a table: which state may follow which, and on what. Pure; starts and stops nothing.

::

    stopped ──START──▶ starting ──UP──▶ ready ──DRAIN──▶ draining
                          │               │                  │
                          ├─────FAIL──────┼───────FAIL───────┤
                          ▼               ▼                  │
    stopped ◀──GONE── stopping ◀──STOP── failed              │
                          ▲                                  │
                          └──────STOP (also from starting, ready)

A failed replica still goes through `stopping`: a dead process may have left children and memory behind.
"""

from dataclasses import dataclass, field
from enum import StrEnum

_SPEED_WEIGHT = 0.3
_LEAST_WEIGHT = 0.05


class ReplicaState(StrEnum):
    """The states of a replica."""

    STOPPED = "stopped"
    STARTING = "starting"
    READY = "ready"
    DRAINING = "draining"
    STOPPING = "stopping"
    FAILED = "failed"


class Step(StrEnum):
    """What moves a replica on."""

    START = "start"
    UP = "up"
    DRAIN = "drain"
    STOP = "stop"
    FAIL = "fail"
    GONE = "gone"


TRANSITIONS: dict[tuple[ReplicaState, Step], ReplicaState] = {
    (ReplicaState.STOPPED, Step.START): ReplicaState.STARTING,
    (ReplicaState.STARTING, Step.UP): ReplicaState.READY,
    (ReplicaState.STARTING, Step.STOP): ReplicaState.STOPPING,
    (ReplicaState.STARTING, Step.FAIL): ReplicaState.FAILED,
    (ReplicaState.READY, Step.DRAIN): ReplicaState.DRAINING,
    (ReplicaState.READY, Step.STOP): ReplicaState.STOPPING,
    (ReplicaState.READY, Step.FAIL): ReplicaState.FAILED,
    (ReplicaState.DRAINING, Step.STOP): ReplicaState.STOPPING,
    (ReplicaState.DRAINING, Step.FAIL): ReplicaState.FAILED,
    (ReplicaState.FAILED, Step.STOP): ReplicaState.STOPPING,
    (ReplicaState.STOPPING, Step.GONE): ReplicaState.STOPPED,
}


class IllegalStep(RuntimeError):
    """A step the table does not have: a fault of ours, never of an engine."""


@dataclass(slots=True)
class Replica:
    """One engine process serving one model, as the scheduler sees it.

    Attributes:
        devices: where it runs: more than one where the engine spreads the model over them, none where it is
            an endpoint of the owner's.
        reserved: bytes reserved on EACH of them from its start until it is gone.
        measured: the most bytes its processes were seen to take of one of them.
        running: ids of the waiters that hold one of its slots.
        granted: slots it has given so far.
        last_used: when a slot was last given or returned, in the scheduler's clock.
        load_seconds: how long its start took: what evicting it costs.
        answered: requests it has answered to their end.
        answer_seconds: how long an answer takes, the mean; 0 until one has ended.
    """

    id: str
    model_id: str
    devices: tuple[str, ...]
    backend: str
    reserved: int
    slots: int
    started_at: float
    state: ReplicaState = ReplicaState.STOPPED
    running: set[str] = field(default_factory=set)
    granted: int = 0
    last_used: float = 0.0
    load_seconds: float = 0.0
    answered: int = 0
    answer_seconds: float = 0.0
    tokens_per_second: float = 0.0
    measured: int = 0

    @property
    def memory(self) -> int:
        """Bytes that count as its own on each device: what was reserved, or more where it takes more."""
        return max(self.reserved, self.measured)

    def take(self, step: Step) -> None:
        """Move on.

        Raises:
            IllegalStep: the table has no such step from here.
        """
        try:
            self.state = TRANSITIONS[self.state, step]
        except KeyError:
            raise IllegalStep(f"replica {self.id}: {step} while {self.state}") from None

    def may(self, step: Step) -> bool:
        """Whether the table has that step from here."""
        return (self.state, step) in TRANSITIONS

    @property
    def ready_at(self) -> float:
        """When it was ready, of a replica that was."""
        return self.started_at + self.load_seconds

    @property
    def idle(self) -> bool:
        """Ready, and answering nobody."""
        return self.state is ReplicaState.READY and not self.running

    @property
    def has_free_slot(self) -> bool:
        """Whether one more request may be admitted."""
        return self.state is ReplicaState.READY and len(self.running) < self.slots

    def observe_answer(self, tokens: int, seconds: float) -> None:
        """Fold one finished request into the averages: how long an answer takes, and a stream's tokens/s."""
        if seconds <= 0:
            return
        self.answered += 1
        self.answer_seconds += max(1 / self.answered, _LEAST_WEIGHT) * (seconds - self.answer_seconds)
        if tokens > 0:
            speed = tokens / seconds
            known = self.tokens_per_second or speed
            self.tokens_per_second = known + _SPEED_WEIGHT * (speed - known)
