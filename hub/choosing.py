"""The choice of a node out of thousands, in a time that does not grow with them.

Owns which few candidates are looked at. Who is permitted is :func:`hub.policy.permits`'s word and which of
them is better :mod:`hub.router`'s: this module asks both, and chooses what they would choose of all nodes,
up to what makes no difference. Pure and synchronous.

Of the best grade (:func:`hub.router.grade`) that somebody has, a few nodes drawn by the request's hash are
compared: the least loaded of as few as two random ones is exponentially better than a random one
(Mitzenmacher, *The Power of Two Choices in Randomized Load Balancing*, IEEE TPDS 2001), and here all that
are drawn wait equally long to within a factor of two. Before that, the node to which the conversation
belongs is looked at.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain, islice
from typing import Protocol
from zlib import crc32

from hub.affinity import RING_MASK, WALK
from hub.offers import OfferIndex
from hub.policy import NO_NARROWING, Narrowing, Policy, RegionTree, permits
from hub.router import (
    COLD,
    PASSING,
    Candidate,
    ModelState,
    Reason,
    Refusal,
    Selection,
    is_within_bound,
    rank,
    select_replica,
    why_not,
)
from hub.shelves import Leaf, full_places, graded, least_grade, pending_places
from hub.tallies import Offered, readiest, tally

FEW = 4
"""Nodes of one grade that are all compared."""
DRAWN = 2
"""Nodes of one grade that are compared where there are more."""
_UNTOLD = frozenset({Reason.PAUSED})  # a session begins to drain, and the index is not told
_PROBES = 3  # nodes beyond those that were tried, of which one at least passes if any does
_MULTIPLIER, _INCREMENT = 6364136223846793005, 1442695040888963407  # Knuth's linear congruence, MMIX


class Nodes(Protocol):
    """What is known of nodes."""

    @property
    def regions(self) -> RegionTree:
        """The operator's tree."""
        ...

    @property
    def is_reading(self) -> bool:
        """Whether more may be known in a moment: facts that were changed are being read."""
        ...

    def candidate(self, node_id: str, model: str) -> Candidate | None:
        """A node as it is at this moment; ``None`` where nothing is known of it."""
        ...

    def own(self, organisation_id: str) -> Iterable[str]:
        """The nodes that an organisation owns, connected or not."""
        ...

    def refile(self, node_id: str, model: str) -> None:
        """A node does not stand where it belongs: put it there."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What a request asks of a node.

    Attributes:
        policy: the key's rules; ``None`` refuses.
        model: the model.
        narrowing: what the request asked for on top.
        exclude: nodes that it has tried already.
        tie_break: anything that differs between requests.
        affinity: the conversation's place on the ring, if any.
    """

    policy: Policy | None
    model: str
    narrowing: Narrowing = NO_NARROWING
    exclude: frozenset[str] = frozenset()
    tie_break: str = ""
    affinity: int | None = None


class Chooser:
    """Chooses among the nodes of an index."""

    def __init__(self, index: OfferIndex, nodes: Nodes) -> None:
        self._index = index
        self._nodes = nodes

    def find(self, asked: Asked) -> Selection | None:
        """The node that serves: one that `hub.router.select_replica` might name of all there are."""
        if asked.policy is None:
            return None
        if asked.narrowing.node_id is not None:
            best = self._able(asked, asked.narrowing.node_id)
            return None if best is None else Selection(best)
        leaves = self._leaves(asked)
        favourites = self._favourites(asked, leaves)
        home = next(favourites, None)
        # What is filed may only be too good, where a node was tried or drains: then the bound is stricter.
        if home is not None and is_within_bound(self._grade(home, asked), least_grade(leaves)):
            return Selection(home)
        best = self._best(asked, leaves)
        if best is None or home is None:
            return None if best is None else Selection(best)
        least = self._grade(best, asked)
        near = (one for one in (home, *favourites) if is_within_bound(self._grade(one, asked), least))
        return Selection(next(near, best))

    def is_still_able(self, asked: Asked, node_id: str) -> Candidate | None:
        """A node on which the request has its place already, if it may and can still serve it there."""
        candidate = self._nodes.candidate(node_id, asked.model)
        if candidate is None:
            return None
        candidate = replace(candidate, in_flight=candidate.in_flight - 1)
        return None if self._why_not(asked, candidate) is not None else candidate

    def is_offered(self, asked: Asked) -> bool:
        """Whether a permitted node names the model, able to serve it or not; narrowing counts for nothing."""
        anyhow = replace(asked, narrowing=NO_NARROWING)
        firsts = (next(iter(places)) for leaf in self._leaves(anyhow) for places in leaf.grades.values())
        found = (self._nodes.candidate(node_id, asked.model) for node_id in self._index.node_ids(firsts))
        return any(
            one is not None
            and one.model_state is not None
            and permits(asked.policy, one.facts, self._nodes.regions).permitted
            for one in found
        )

    def find_cold(self, asked: Asked, count: int) -> list[Candidate]:
        """Permitted nodes that would have to load the model, and fit: at most so many, drawn by the hash."""
        pools = [places for leaf in self._leaves(asked) if (places := leaf.grades.get(COLD))]
        drawn = dict.fromkeys(self._index.node_ids(_draw(pools, _salt(asked), count, count)))
        return [one for node_id in drawn if (one := self._able(asked, node_id)) is not None]

    def offered(
        self, policy: Policy | None, narrowing: Narrowing = NO_NARROWING, *, model: str = "", most: int = 1
    ) -> Iterator[Offered]:
        """What a key may use now, model by model: for people to look at; no request goes by it.

        Args:
            policy: the key's rules; ``None`` may use nothing.
            narrowing: what would be asked for on top.
            model: only this one.
            most: so many of each model's nodes are named, the readiest.
        """
        if policy is None:
            return
        for name, leaves in self._index.by_model(policy, self._nodes.regions, narrowing, model):
            places = islice(readiest(leaves), 2 * most)  # a node may stand there twice
            node_ids = dict.fromkeys(self._index.node_ids(places))
            permitted = (one for one in node_ids if self._is_permitted(policy, narrowing, one, name))
            yield Offered(name, tally(leaves), tuple(islice(permitted, most)))

    def offering(
        self, policy: Policy | None, narrowing: Narrowing = NO_NARROWING, *, model: str = ""
    ) -> Iterator[tuple[str, list[Candidate]]]:
        """The permitted nodes that name a model, each as it is now, model by model.

        Args:
            policy: the key's rules; ``None`` may use nothing.
            narrowing: what would be asked for on top.
            model: only this one.
        """
        if policy is None:
            return
        regions = self._nodes.regions
        for name, leaves in self._index.by_model(policy, regions, narrowing, model):
            node_ids = dict.fromkeys(self._index.node_ids(readiest(leaves)))  # a node may stand there twice
            known = (self._nodes.candidate(node_id, name) for node_id in node_ids)
            found = [one for one in known if one and permits(policy, one.facts, regions, narrowing).permitted]
            if found:
                yield name, found

    def _is_permitted(self, policy: Policy, narrowing: Narrowing, node_id: str, model: str) -> bool:
        candidate = self._nodes.candidate(node_id, model)
        return candidate is not None and bool(
            permits(policy, candidate.facts, self._nodes.regions, narrowing)
        )

    def is_passing(self, asked: Asked) -> bool:
        """Whether a permitted node is full, or about to say what it offers, or nodes are being read again.

        That is worth waiting for.
        """
        if asked.policy is not None and self._nodes.is_reading:
            return True
        return any(self._why_not(asked, one) in PASSING for one in self._passing(asked))

    def refusal(self, asked: Asked) -> Selection | Refusal:
        """Why nobody serves, told of the caller's own nodes; takes the longer the more of them there are."""
        owner = None if asked.policy is None else asked.policy.organisation_id
        own = () if owner is None else self._nodes.own(owner)
        mine = (one for node_id in own if (one := self._nodes.candidate(node_id, asked.model)) is not None)
        others = (one for one in self._passing(asked) if one.facts.owner_id != owner)
        return select_replica(
            asked.policy,
            asked.model,
            chain(mine, others),
            self._nodes.regions,
            asked.narrowing,
            exclude=asked.exclude,
        )

    def _leaves(self, asked: Asked) -> list[Leaf]:
        if asked.policy is None:
            return []
        return self._index.leaves(asked.policy, asked.model, self._nodes.regions, asked.narrowing)

    def _favourites(self, asked: Asked, leaves: list[Leaf]) -> Iterator[Candidate]:
        """The first nodes after the conversation's place that are ready and able."""
        if asked.affinity is None:
            return
        near = self._index.nearest(leaves, asked.affinity, WALK + len(asked.exclude))
        able = (one for node_id in near if (one := self._able(asked, node_id)) is not None)
        yield from islice((one for one in able if one.readiness is ModelState.READY), WALK)

    def _grade(self, candidate: Candidate, asked: Asked) -> int | None:
        return self._index.grade_of(candidate.facts.node_id, asked.model)

    def _best(self, asked: Asked, leaves: list[Leaf]) -> Candidate | None:
        salt = _salt(asked)
        for _, pools in graded(leaves):
            if (best := self._best_of(asked, _draw(pools, salt, DRAWN, FEW), salt)) is not None:
                return best
            # Tried already, or draining since: rare, and no reason to refuse.
            if (best := self._best_of(asked, list(chain(*pools)), salt)) is not None:
                return best
        return None

    def _best_of(self, asked: Asked, places: Sequence[int], salt: str) -> Candidate | None:
        """The best of these that is permitted, able and was not tried."""
        found = []
        for node_id in list(self._index.node_ids(places)):
            candidate = self._nodes.candidate(node_id, asked.model)
            if candidate is not None:
                found.append((rank(candidate, salt), candidate))
        found.sort(key=lambda each: each[0])
        for _, candidate in found:
            reason = self._why_not(asked, candidate)
            if reason is None:
                return candidate
            if reason in _UNTOLD:
                self._nodes.refile(candidate.facts.node_id, asked.model)
        return None

    def _able(self, asked: Asked, node_id: str) -> Candidate | None:
        candidate = self._nodes.candidate(node_id, asked.model)
        if candidate is None or self._why_not(asked, candidate) is not None:
            return None
        return candidate

    def _why_not(self, asked: Asked, candidate: Candidate) -> Reason | None:
        return why_not(asked.policy, candidate, self._nodes.regions, asked.narrowing, asked.exclude)

    def _passing(self, asked: Asked) -> Iterator[Candidate]:
        """Some of those that are full or have yet to report: one that may be waited for, if any may."""
        if asked.policy is None:
            return
        if (wished := asked.narrowing.node_id) is not None:
            candidate = self._nodes.candidate(wished, asked.model)
            yield from () if candidate is None else (candidate,)
            return
        pending = self._index.pending(asked.policy, self._nodes.regions, asked.narrowing)
        count = _PROBES + len(asked.exclude)
        for places in (full_places(self._leaves(asked)), pending_places(pending)):
            for node_id in self._index.node_ids(list(islice(places, count))):
                if (candidate := self._nodes.candidate(node_id, asked.model)) is not None:
                    yield candidate


def _salt(asked: Asked) -> str:
    return f"{asked.model}\0{asked.tie_break}"


def _draw(pools: Sequence[Sequence[int]], salt: str, count: int, few: int) -> list[int]:
    """So many of what the pools hold, by a hash and so repeatably; all of them where they are few."""
    total = sum(map(len, pools))
    if total <= 2 * few:  # a node may stand in two pools, as its owner's and as one that is lent
        distinct = list(dict.fromkeys(chain(*pools)))
        if len(distinct) <= few:
            return distinct
    state, drawn = crc32(salt.encode()), []
    for _ in range(count):
        state = (state * _MULTIPLIER + _INCREMENT) & RING_MASK
        drawn.append(_nth(pools, (state >> 32) % total))
    return drawn


def _nth(pools: Sequence[Sequence[int]], index: int) -> int:
    for places in pools:
        if index < len(places):
            return places[index]
        index -= len(places)
    raise IndexError(index)
