"""Requests that wait because every node that may serve them is full.

Owns the waiting: a line for each model (:mod:`hub.line`), and the handing over of places. Must not know
HTTP or what comes after.

A place that becomes free is taken in a waiter's name the moment it does (:class:`hub.registry.Occupied`),
so that no newcomer slips in before and no call is lost: whoever is cancelled with a place in hand gives it
back, and it goes to the next. Whether the place may be used is asked once more by whoever got it: a key may
have changed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from hub import refusals
from hub.choosing import Asked
from hub.line import Line, Waiter
from hub.registry import Occupied, Registry
from hub.router import PASSING, Candidate, Selection, why_not, why_unable


@dataclass(slots=True)
class _Request:
    """What waits: `place` becomes a place, or ``None`` to look again."""

    asked: Asked
    place: asyncio.Future[Occupied | None]


_Waiter = Waiter[_Request]


class WaitingRoom:
    """The lines of all models. Belongs to one event loop; sets itself up as the registry's watcher.

    Args:
        registry: where places are taken.
        limit: requests of one organisation that may wait for one model at once.
    """

    def __init__(self, registry: Registry, *, limit: int) -> None:
        self._registry = registry
        self._limit = limit
        self._lines: dict[str, Line[_Request]] = {}
        registry.watcher = self

    def __len__(self) -> int:
        return sum(map(len, self._lines.values()))

    async def wait(self, asked: Asked, organisation_id: str) -> Occupied | None:
        """Wait for a place, in turn.

        Returns:
            The place, which is the caller's to release; ``None`` where nothing is left to wait for, or that
            cannot be told: then look again.

        Raises:
            RequestFailed: ``overloaded``: too many of the organisation wait.
        """
        place: asyncio.Future[Occupied | None] = asyncio.get_running_loop().create_future()
        waiter = Waiter(organisation_id, (asked.policy, asked.narrowing), _Request(asked, place))
        line = self._lines.setdefault(asked.model, Line(self._limit))
        try:
            if not line.join(waiter):
                raise refusals.overloaded()
            return await place
        except asyncio.CancelledError:
            self._give_back(place)
            raise
        finally:
            line.leave(waiter)
            self._tidy(asked.model)

    def _give_back(self, place: asyncio.Future[Occupied | None]) -> None:
        """The place came, and its owner was cancelled before it could take it."""
        if place.done() and not place.cancelled():
            occupied = place.result()
            if occupied is not None:
                occupied.release()

    def _tidy(self, model: str) -> None:
        if not self._lines.get(model, True):
            del self._lines[model]

    # --- the registry's watcher --------------------------------------------------------------------------

    def room(self, node_id: str, model: str) -> None:
        """Hand the room of a node on, for as long as there is some."""
        line = self._lines.get(model)
        if line is None:
            return
        while (node := self._registry.candidate(node_id, model)) is not None and why_unable(node) is None:
            waiter = _next(line, partial(self._may_use, node))
            if waiter is None:
                break
            waiter.request.place.set_result(self._registry.occupy(node_id, model))
        if node is None or why_unable(node) not in (None, *PASSING):
            self._dismiss(line)
        self._tidy(model)

    def changed(self) -> None:
        """Let everybody have what there is now, and those go for whom nothing will come."""
        for model, line in list(self._lines.items()):
            while (found := self._next_found(line)) is not None:
                waiter, node_id = found
                waiter.request.place.set_result(self._registry.occupy(node_id, model))
            self._dismiss(line)
            self._tidy(model)

    def _may_use(self, node: Candidate, waiter: _Waiter) -> bool:
        asked = waiter.request.asked
        return why_not(asked.policy, node, self._registry.regions, asked.narrowing, asked.exclude) is None

    def _next_found(self, line: Line[_Request]) -> tuple[_Waiter, str] | None:
        found: list[Selection] = []

        def finds(waiter: _Waiter) -> bool:
            selection = self._registry.chooser.find(waiter.request.asked)
            found.extend(() if selection is None else (selection,))
            return selection is not None

        waiter = _next(line, finds)
        return None if waiter is None else (waiter, found[0].node_id)

    def _dismiss(self, line: Line[_Request]) -> None:
        """Let those look again for whom no node is full or about to report any more."""
        for head in line.heads():
            if not self._registry.chooser.is_passing(head.request.asked):
                for waiter in line.file_of(head):
                    line.leave(waiter)
                    if not waiter.request.place.done():
                        waiter.request.place.set_result(None)


def _next(line: Line[_Request], may: Callable[[_Waiter], bool]) -> _Waiter | None:
    """Whose turn it is. Who was cancelled and has not run since stands in nobody's way."""
    while gone := [waiter for waiter in line.heads() if waiter.request.place.done()]:
        for waiter in gone:
            line.leave(waiter)
    return line.next(may)
