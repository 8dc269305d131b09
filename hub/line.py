"""Who waits for a model, and whose turn it is. Pure: no clock, no tasks, no nodes.

Owns the order: round robin between organisations (the fair queueing of Nagle, *On Packet Switches with
Infinite Storage*, RFC 970), first come first served within one. The organisation that was served longest
ago is first; how many of its requests wait makes no difference. Whoever cannot use what has become free is
passed over and keeps its turn, and holds nobody up.

Requests that the same nodes may serve stand in one file (policy and narrowing alike), so that only the
first of each file has to be asked about a node.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass, field
from typing import Generic, TypeVar

T = TypeVar("T")


@dataclass(eq=False, slots=True)
class Waiter(Generic[T]):
    """One request that waits.

    Attributes:
        organisation: between which turns go round.
        kind: equal for requests that the same nodes may serve.
        request: whatever it is that waits.
        number: its place in the order of arrival, once it has joined.
    """

    organisation: str
    kind: Hashable
    request: T
    number: int = field(default=0, init=False)


class Line(Generic[T]):
    """Those who wait for one model.

    Args:
        limit: how many of one organisation may wait at once.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._files: dict[tuple[str, Hashable], dict[Waiter[T], None]] = {}
        self._waiting: Counter[str] = Counter()
        self._served: dict[str, int] = {}
        self._arrivals = 0
        self._turns = 0

    def __len__(self) -> int:
        return self._waiting.total()

    def join(self, waiter: Waiter[T]) -> bool:
        """Stand in line; False where as many of the waiter's organisation stand there as may.

        How many others wait makes no difference: a line that all of them fill would tell each, by turning it
        away, that others ask for the same model, be it on nodes of their own.
        """
        if self._waiting[waiter.organisation] >= self._limit:
            return False
        self._arrivals += 1
        waiter.number = self._arrivals
        self._files.setdefault((waiter.organisation, waiter.kind), {})[waiter] = None
        self._waiting[waiter.organisation] += 1
        return True

    def leave(self, waiter: Waiter[T]) -> None:
        """Stand in line no more; who does not stand in it may leave, too."""
        key = (waiter.organisation, waiter.kind)
        file = self._files.get(key)
        if file is None or waiter not in file:
            return
        del file[waiter]
        if not file:
            del self._files[key]
        self._waiting[waiter.organisation] -= 1
        if not self._waiting[waiter.organisation]:
            del self._waiting[waiter.organisation]
        if not self._waiting:
            self._served.clear()  # whose turn it was is over with the line

    def next(self, may: Callable[[Waiter[T]], bool]) -> Waiter[T] | None:
        """Take the first out of the line of those that may have what is free.

        Args:
            may: asked of the first of each file, in the order of turns, until it says yes.
        """
        for waiter in self.heads():
            if may(waiter):
                self._turns += 1
                self._served[waiter.organisation] = self._turns
                self.leave(waiter)
                return waiter
        return None

    def heads(self) -> Iterator[Waiter[T]]:
        """The first of each file, in the order of turns."""
        firsts = [next(iter(file)) for file in self._files.values()]
        firsts.sort(key=lambda waiter: (self._served.get(waiter.organisation, 0), waiter.number))
        return iter(firsts)

    def file_of(self, waiter: Waiter[T]) -> list[Waiter[T]]:
        """Everybody in a waiter's file, the first first."""
        return list(self._files.get((waiter.organisation, waiter.kind), ()))
