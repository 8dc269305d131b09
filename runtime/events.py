"""What the scheduler is told (events) and what it wants done (effects). Plain values; nothing acts here."""

from dataclasses import dataclass
from enum import StrEnum

from runtime.errors import RuntimeFault
from runtime.placement import Capacity, Offer
from runtime.progress import LoadProgress


class Need(StrEnum):
    """What a waiter waits for."""

    DISK = "disk"
    READY = "ready"
    SLOT = "slot"


# -- events ------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Wanted:
    """Somebody waits for a model until `deadline`. Answered by one Grant or Refuse, unless it left.

    `share` says on whose behalf, where that is known: slots go round between organisations.
    """

    waiter_id: str
    model_id: str
    deadline: float
    need: Need = Need.SLOT
    share: str = ""


@dataclass(frozen=True, slots=True)
class Left:
    """The waiter has gone, or has done with what it was granted. Harmless when repeated.

    `tokens` and `seconds` describe the finished request, for the replica's speed.
    """

    waiter_id: str
    tokens: int = 0
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Prepared:
    """The model is on the disk; these are the ways to run it, best first."""

    load_id: str
    offers: tuple[Offer, ...]


@dataclass(frozen=True, slots=True)
class PrepareFailed:
    """The model could not be brought to the disk, or not be understood. A known fault is passed on."""

    load_id: str
    reason: str
    fault: RuntimeFault | None = None


@dataclass(frozen=True, slots=True)
class Progressed:
    """A load got further."""

    load_id: str
    progress: LoadProgress


@dataclass(frozen=True, slots=True)
class Started:
    """The replica answers."""

    replica_id: str


@dataclass(frozen=True, slots=True)
class Failed:
    """The replica did not start, or died."""

    replica_id: str
    reason: str


@dataclass(frozen=True, slots=True)
class Measured:
    """What the replica's processes were seen to take of each of its devices, in bytes."""

    replica_id: str
    memory: int


@dataclass(frozen=True, slots=True)
class Gone:
    """The replica's processes are gone; `held` bytes of a device did not come back (0: all of it did)."""

    replica_id: str
    held: int = 0
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Released:
    """What a gone replica held has come back after all."""

    replica_id: str


@dataclass(frozen=True, slots=True)
class DevicesChanged:
    """The devices and their budgets, all of them."""

    capacities: tuple[Capacity, ...]


@dataclass(frozen=True, slots=True)
class UnloadAsked:
    """The owner wants the model out of memory."""

    model_id: str


@dataclass(frozen=True, slots=True)
class StopAsked:
    """The node shuts down: nothing new; `cut` ends what is being answered, else it may finish."""

    cut: bool = False


@dataclass(frozen=True, slots=True)
class Tick:
    """Time has passed."""


Event = (
    Wanted
    | Left
    | Prepared
    | PrepareFailed
    | Progressed
    | Started
    | Failed
    | Measured
    | Gone
    | Released
    | DevicesChanged
    | UnloadAsked
    | StopAsked
    | Tick
)

# -- effects ------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Prepare:
    """Bring the model to the disk and find out how it can run. Answer: Prepared or PrepareFailed."""

    load_id: str
    model_id: str


@dataclass(frozen=True, slots=True)
class CancelPrepare:
    """Nobody wants that load any more. No answer."""

    load_id: str


@dataclass(frozen=True, slots=True)
class Start:
    """Start an engine. Answer: Started or Failed; after a Stop neither is needed."""

    replica_id: str
    model_id: str
    devices: tuple[str, ...]
    backend: str


@dataclass(frozen=True, slots=True)
class Stop:
    """End the replica's processes and see that the memory is back. Answer: Gone."""

    replica_id: str


@dataclass(frozen=True, slots=True)
class Grant:
    """The waiter has what it needs; `replica_id` is None where the disk was all it needed."""

    waiter_id: str
    replica_id: str | None


@dataclass(frozen=True, slots=True)
class Refuse:
    """The waiter gets nothing."""

    waiter_id: str
    fault: RuntimeFault


@dataclass(frozen=True, slots=True)
class Announce:
    """Tell these waiters how far their load is."""

    waiter_ids: tuple[str, ...]
    progress: LoadProgress


Effect = Prepare | CancelPrepare | Start | Stop | Grant | Refuse | Announce
