"""What is asked of a generator: the loads, in which shares several take one, and when a run ends.

Pure. Owns the schedules, and the rule by which a load ends that only fails. Must not know how requests are
sent, nor what comes of them.
"""

import itertools
import random
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Final


class Arrivals(StrEnum):
    """How the requests of an open loop are spread: at random as from many people, evenly, or in bursts."""

    POISSON = "poisson"
    CONSTANT = "constant"
    BURST = "burst"


@dataclass(frozen=True, slots=True)
class ClosedLoop:
    """So many requests are kept in flight: each is followed by the next once it is answered."""

    concurrency: int

    def as_settings(self) -> dict[str, object]:
        """What it is, ready for JSON."""
        return {"kind": "closed", "concurrency": self.concurrency}

    def __str__(self) -> str:
        return f"{self.concurrency} at a time"


@dataclass(frozen=True, slots=True)
class OpenLoop:
    """So many conversations a second come on average, however slowly they are answered.

    Attributes:
        rate: a second.
        arrivals: how they are spread.
        seed: decides the moments.
        burstiness: of bursts: the shape of the gamma distribution of the gaps, whose mean stays 1/rate. It is
            that of vLLM's ``bench serve`` (``vllm/benchmarks/serve.py``, ``get_request``): 1 is Poisson, less
            comes in bursts, more comes more evenly. vLLM then stretches the whole schedule to end when it
            should on average; here the gaps stay as they are drawn.
    """

    rate: float
    arrivals: Arrivals = Arrivals.POISSON
    seed: int = 0
    burstiness: float = 1.0

    def offsets(self) -> Iterator[float]:
        """When each is due, in seconds from the start; endless and repeatable by the seed."""
        if self.arrivals is Arrivals.CONSTANT:
            return (number / self.rate for number in itertools.count())
        return itertools.accumulate(self._gaps())

    def _gaps(self) -> Iterator[float]:
        chance = random.Random(f"{self.seed}/arrivals")  # noqa: S311 - repeatable on purpose
        if self.arrivals is Arrivals.POISSON:
            return (chance.expovariate(self.rate) for _ in itertools.count())
        shape = self.burstiness
        return (chance.gammavariate(shape, 1 / (self.rate * shape)) for _ in itertools.count())

    def as_settings(self) -> dict[str, object]:
        """What it is, ready for JSON."""
        told = {"kind": "open", "rate": self.rate, "arrivals": self.arrivals.value, "seed": self.seed}
        return told | ({"burstiness": self.burstiness} if self.arrivals is Arrivals.BURST else {})

    def __str__(self) -> str:
        shape = f" {self.burstiness:g}" if self.arrivals is Arrivals.BURST else ""
        return f"{self.rate:g} a second, {self.arrivals.value}{shape}"


@dataclass(frozen=True, slots=True)
class Replay:
    """Requests come when those of a trace did.

    Attributes:
        moments: when each came, in seconds from the first, in order.
        speed: 2 replays it in half the time.
        name: of the trace.
    """

    moments: tuple[float, ...]
    speed: float = 1.0
    name: str = "trace"

    def offsets(self) -> Iterator[float]:
        """When each request is due, in seconds from the start; ends with the trace."""
        return (moment / self.speed for moment in self.moments)

    def as_settings(self) -> dict[str, object]:
        """What it is, ready for JSON."""
        return {"kind": "replay", "trace": self.name, "requests": len(self.moments), "speed": self.speed}

    def __str__(self) -> str:
        speed = "" if self.speed == 1 else f" at {self.speed:g} times its speed"
        return f"{self.name} replayed{speed}"


Load = ClosedLoop | OpenLoop | Replay


@dataclass(frozen=True, slots=True)
class Share:
    """The part of a load that one of several generators takes; all shares together are the whole load.

    An open loop's conversations go round by their number. A closed loop's streams go round, and each
    conversation to the stream whose turn it is: who has more streams has as many more conversations.
    """

    index: int = 0
    count: int = 1

    def streams(self, load: ClosedLoop) -> int:
        """How many of the streams it keeps."""
        return len(range(self.index, load.concurrency, self.count))

    def takes(self, number: int, load: Load) -> bool:
        """Whether conversation ``number`` is one of its own."""
        turn = number % load.concurrency if isinstance(load, ClosedLoop) else number
        return turn % self.count == self.index


WHOLE: Final = Share()


@dataclass(frozen=True, slots=True)
class Limit:
    """When no further request is begun: after so many, or so many seconds, whichever comes first.

    Requests are counted in the order of their conversations, each with all its turns.
    """

    requests: int | None = None
    seconds: float | None = None


FIRST: Final = 300
"""So many requests at the beginning of a load say whether there is any sense in it."""
_VAIN_S: Final = 3.0
"""An endpoint that is being restarted refuses for a moment, and is measured all the same."""


def in_vain(*, failed: int, answered: int, seconds: float) -> bool:
    """Whether a load is to end before its limit: its first requests all failed, and none was answered since.

    Streams that fail at once are begun anew at once: they would fill the memory, and say nothing more.

    Args:
        failed: of the ``FIRST`` requests that were begun; one that is still under way may be answered.
        answered: of all requests.
        seconds: since the load began.
    """
    return failed == FIRST and not answered and seconds >= _VAIN_S
