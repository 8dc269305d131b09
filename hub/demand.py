"""Which models are wanted more than their nodes can give, and by whom. Pure: time is an argument.

Owns the observation of waiting and the wish that follows from it: that one more node load the model. Must not
know nodes, jobs or sessions: :mod:`hub.spreading` finds a node that the same policy permits, and asks it.

A model is *hot* for a policy while most of its requests would have to wait longer than a bound; it cools
off only once few of them do (hysteresis), and has to have been hot for some seconds without a break before
anything is wished for. Then one node is asked and the count begins anew: what the new replica does for the
wait is seen before another is asked. Nothing is wished for to keep a model warm: replicas that nobody uses
are unloaded by their nodes' own ``idle_ttl``.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Hashable
from dataclasses import dataclass, field
from math import exp
from typing import Generic, TypeVar

from hub.choosing import Asked
from hub.router import Candidate, ModelState, estimated_wait_s

HOT_WAIT_S = 1.0
"""Seconds of estimated wait above which a request counts as kept waiting."""
HOT_SHARE = 0.5
"""Share of the requests kept waiting at which a model becomes hot."""
COOL_SHARE = 0.25
"""Share below which it is hot no more."""
MEMORY_S = 5.0
"""Seconds in which what was observed loses its weight, to a third."""
RETRY_S = 30.0
"""Seconds until a wish that no node could grant is made again."""

MAX_UNDER_WAY = 8
"""Loads that the Hub has asked for and that go on, at most."""
MAX_OF_ONE = 2
"""Those of one model, and those for one organisation."""

USUAL_TOKENS = 256.0
"""Length of an answer before any is known."""
_LENGTH_WEIGHT = 0.05
_MAX_KNOWN = 4096  # models, and kinds of requests: beyond it all are learned again

S = TypeVar("S")


@dataclass(frozen=True, slots=True)
class Wish(Generic[S]):
    """That one more node load a model.

    Attributes:
        asked: what a request of the kind that waits asks for: who may grant the wish is judged by it.
        source: whose request that was.
    """

    asked: Asked
    source: S
    key: Hashable = field(repr=False)

    @property
    def model(self) -> str:
        """What is to be loaded."""
        return self.asked.model

    @property
    def organisation_id(self) -> str:
        """For whom."""
        return "" if self.asked.policy is None else self.asked.policy.organisation_id


@dataclass(slots=True)
class _Heat(Generic[S]):
    """What was seen of the requests of one kind, older observations weighing less."""

    asked: Asked
    source: S
    at: float
    kept_waiting: float = 0.0
    seen: float = 0.0
    hot_since: float | None = None
    quiet_until: float = 0.0

    def observe(self, *, waits: bool, now: float) -> None:
        fade = exp(-max(now - self.at, 0.0) / MEMORY_S)
        self.kept_waiting = self.kept_waiting * fade + waits
        self.seen = self.seen * fade + 1
        self.at = now
        share = self.kept_waiting / self.seen
        if share >= HOT_SHARE:
            self.hot_since = now if self.hot_since is None else self.hot_since
        elif share < COOL_SHARE:
            self.hot_since = None

    def is_due(self, patience_s: float, now: float) -> bool:
        recent = now - self.at <= 2 * MEMORY_S
        lasting = self.hot_since is not None and now - self.hot_since >= patience_s
        return recent and lasting and now >= self.quiet_until


class Demand(Generic[S]):
    """The demand for all models, by what may serve it.

    Args:
        patience_s: seconds for which a model must be hot; 0: nothing is ever wished for.
    """

    def __init__(self, patience_s: float = 0.0) -> None:
        self._patience_s = patience_s
        self._heats: dict[Hashable, _Heat[S]] = {}
        self._lengths: dict[str, float] = {}

    # --- what is observed --------------------------------------------------------------------------------

    def asked(self, asked: Asked, source: S, chosen: Candidate | None, now: float) -> None:
        """A request was given a node, or none because all are full.

        One that is held to a node says nothing: no other could help it. Nor does one whose node is loading
        the model just now.

        Args:
            asked: what it asked for.
            source: whose request it is.
            chosen: the node, if any.
            now: monotonic seconds.
        """
        if not self._patience_s or asked.policy is None or asked.narrowing.node_id is not None:
            return
        if chosen is not None and chosen.readiness is not ModelState.READY:
            return
        waits = chosen is None or estimated_wait_s(chosen, self.typical_tokens(asked.model)) > HOT_WAIT_S
        key = (asked.model, asked.policy, asked.narrowing.region)
        heat = self._heats.get(key)
        if heat is None:
            if not waits:
                return
            if len(self._heats) >= _MAX_KNOWN:
                self._heats.clear()
            heat = self._heats[key] = _Heat(asked, source, now)
        heat.source = source
        heat.observe(waits=waits, now=now)

    def answered(self, model: str, tokens: int) -> None:
        """An answer of so many tokens was given."""
        if tokens <= 0:
            return
        if model not in self._lengths and len(self._lengths) >= _MAX_KNOWN:
            self._lengths.clear()
        known = self._lengths.get(model, float(tokens))
        self._lengths[model] = known + _LENGTH_WEIGHT * (tokens - known)

    def typical_tokens(self, model: str) -> float:
        """How long a model's answers usually are."""
        return self._lengths.get(model, USUAL_TOKENS)

    # --- what follows from it ----------------------------------------------------------------------------

    def wishes(self, under_way: Collection[tuple[str, str]], now: float) -> list[Wish[S]]:
        """What is to be loaded on one more node each, where most wait first; within the caps.

        Args:
            under_way: the loads asked for that go on, by model and organisation.
            now: monotonic seconds.
        """
        self._forget_the_old(now)
        due = [(key, heat) for key, heat in self._heats.items() if heat.is_due(self._patience_s, now)]
        due.sort(key=lambda each: -each[1].kept_waiting)
        models = Counter(model for model, _ in under_way)
        owners = Counter(owner for _, owner in under_way)
        found: list[Wish[S]] = []
        for key, heat in due:
            wish = Wish(heat.asked, heat.source, key)
            has_room = len(under_way) + len(found) < MAX_UNDER_WAY
            if has_room and models[wish.model] < MAX_OF_ONE and owners[wish.organisation_id] < MAX_OF_ONE:
                models[wish.model] += 1
                owners[wish.organisation_id] += 1
                found.append(wish)
        return found

    def granted(self, wish: Wish[S]) -> None:
        """A node was asked: whether that is enough has to show first."""
        if (heat := self._heats.get(wish.key)) is not None:
            heat.hot_since = None

    def in_vain(self, wish: Wish[S], now: float) -> None:
        """No node could be asked: not to be wished for again for a while."""
        if (heat := self._heats.get(wish.key)) is not None:
            heat.quiet_until = now + RETRY_S

    def drop(self, wish: Wish[S]) -> None:
        """Whoever asked may ask no more."""
        self._heats.pop(wish.key, None)

    def _forget_the_old(self, now: float) -> None:
        for key in [key for key, heat in self._heats.items() if now - heat.at > RETRY_S]:
            del self._heats[key]
