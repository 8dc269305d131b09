"""What the Hub knows of nodes and regions: copies of what storage holds, never older than a known change.

Owns those copies and their freshness. Must not know sessions, requests or HTTP.

A fact that may be out of date counts as unknown, and an unknown node serves nobody: when a change is
announced the copy goes first and comes back only from storage.

Reads overlap, of one node and of everything, and their answers come in any order. So each read has a number,
and so has each announcement, in the order in which they began: of a node only the answer of a read that began
after the last announcement counts, and never one of a read that began before the one that is believed. A
picture of everything is believed node by node: changes to some, however many, keep no news of others away.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection, Coroutine, Iterator, Sequence
from typing import Any, Protocol

from hub.changes import Change, KeyChanged, NodeChanged, NodeRevoked, RegionsChanged
from hub.policy import NodeFacts, RegionTree

log = logging.getLogger(__name__)


class FactSource(Protocol):
    """What is asked of storage."""

    async def node(self, node_id: str) -> NodeFacts | None:
        """One node, ``None`` where there is no such node."""
        ...

    async def nodes(self) -> Sequence[NodeFacts]:
        """Every node."""
        ...

    async def regions(self) -> RegionTree:
        """The operator's regions."""
        ...


class Background:
    """Work that nobody waits for: it is kept referenced, its failures are logged, its end can be awaited."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[None]] = set()

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """Start it."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        error = None if task.cancelled() else task.exception()
        if error is not None:
            log.error("background work failed", extra={"event": "background.failed", "error": repr(error)})

    async def close(self) -> None:
        """Cancel what is left and wait for it."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


class KnownFacts:
    """The copies. Reading them is synchronous: a decision sees one state of the world."""

    def __init__(
        self,
        source: FactSource,
        *,
        on_read: Callable[[Sequence[str] | None], None],
        on_revoked: Callable[[str], None],
        on_unknown: Callable[[Sequence[str] | None], None],
    ) -> None:
        """Watch a source.

        Args:
            source: where facts come from.
            on_read: called with the nodes just read, ``None`` for all, so that sessions are made to obey.
            on_revoked: called at once with a node that was revoked, before anything is read.
            on_unknown: called with the nodes of which nothing is known any more, ``None`` for all.
        """
        self._source = source
        self._on_read = on_read
        self._on_revoked = on_revoked
        self._on_unknown = on_unknown
        self._nodes: dict[str, NodeFacts] = {}
        self._owned: dict[str, set[str]] = {}
        self._regions = RegionTree()
        self._begun = 0
        self._since = 0
        """The read of everything that is believed, or when all was forgotten: nothing older counts."""
        self._node_since: dict[str, int] = {}
        """The same of single nodes, where it is later."""
        self._regions_since = 0
        self._unread: set[str] = set()
        self._unloaded = True
        self._reads = 0
        self._background = Background()

    @property
    def regions(self) -> RegionTree:
        """The operator's tree; empty, and so refusing every region, while it is being read again."""
        return self._regions

    @property
    def incomplete(self) -> bool:
        """Whether something is not known that storage could tell, so that `load` is due."""
        return self._unloaded or bool(self._unread)

    @property
    def is_reading(self) -> bool:
        """Whether something that is unknown now is being read, and so may be known in a moment."""
        return self._reads > 0

    def is_unread(self, node_id: str) -> bool:
        """Whether storage has yet to say what became of a node."""
        return node_id in self._unread

    def __iter__(self) -> Iterator[NodeFacts]:
        return iter(self._nodes.values())

    def get(self, node_id: str) -> NodeFacts | None:
        """What is known of a node now; ``None`` where it is unknown or being read again."""
        return self._nodes.get(node_id)

    def owned_by(self, organisation_id: str) -> Collection[str]:
        """The nodes of an organisation of which something is known."""
        return self._owned.get(organisation_id, ())

    def want(self, node_id: str) -> None:
        """A node has appeared that may not be known yet."""
        if node_id not in self._nodes and node_id not in self._unread:
            self._read_again(node_id)

    async def load(self) -> None:
        """Read everything. Of what is announced meanwhile nothing is taken from it: that is read by itself.

        Raises:
            StorageUnavailable: the database does not answer. What was known stays known: see `forget`.
        """
        begun = self._next()
        nodes, regions = await self._source.nodes(), await self._source.regions()
        if begun < self._since:
            return  # a later one came first, or all was forgotten and `incomplete` says so
        self._believe(nodes, begun)
        if begun > self._regions_since:
            self._regions = regions
            self._unloaded = False
        self._on_read(None)

    def _next(self) -> int:
        self._begun += 1
        return self._begun

    def _believe(self, nodes: Sequence[NodeFacts], begun: int) -> None:
        """Take the place of what was known before. What is the same stays the same object: others compare."""
        before, self._nodes, self._owned = self._nodes, {}, {}
        self._since = begun
        self._node_since = {name: since for name, since in self._node_since.items() if since > begun}
        self._unread &= self._node_since.keys()
        for node in nodes:
            if node.node_id not in self._node_since:
                known = before.get(node.node_id)
                self._know(known if known == node else node)
        for node_id in self._node_since:
            if (later := before.get(node_id)) is not None:
                self._know(later)

    def _know(self, node: NodeFacts) -> None:
        self._nodes[node.node_id] = node
        self._owned.setdefault(node.owner_id, set()).add(node.node_id)

    def _unknow(self, node_id: str) -> None:
        node = self._nodes.pop(node_id, None)
        if node is not None:
            self._owned[node.owner_id].discard(node_id)

    def forget(self) -> None:
        """Hold everything for unknown: nothing is dispatched until `load` has succeeded."""
        self._since = self._regions_since = self._next()
        self._unloaded = True
        self._nodes, self._owned = {}, {}
        self._regions = RegionTree()
        self._on_unknown(None)

    def obey(self, change: Change) -> None:
        """Take note of a change; subscribed to `Changes`. What was known of it is gone when this returns."""
        match change:
            case NodeRevoked(node_id):
                self._read_again(node_id)
                self._on_revoked(node_id)
            case NodeChanged(node_id):
                self._read_again(node_id)
            case RegionsChanged():
                self._regions_since = self._next()
                self._unloaded = True
                self._regions = RegionTree()
                self._begin(self.load())
            case KeyChanged():
                pass

    def _read_again(self, node_id: str) -> None:
        self._node_since[node_id] = self._next()
        self._unknow(node_id)
        self._unread.add(node_id)
        self._begin(self._read(node_id))
        self._on_unknown([node_id])

    def _begin(self, read: Coroutine[Any, Any, None]) -> None:
        self._reads += 1
        self._background.spawn(self._carry_out(read))

    async def _carry_out(self, read: Coroutine[Any, Any, None]) -> None:
        """Whatever becomes of a read: those who waited for it look again."""
        try:
            await read
        finally:
            self._reads -= 1
            if not self._reads:
                self._on_unknown(())

    async def _read(self, node_id: str) -> None:
        """A read that fails leaves the node unknown, and `incomplete` makes the next poll load everything."""
        begun = self._next()
        facts = await self._source.node(node_id)
        if begun < self._node_since.get(node_id, self._since):
            return  # changed meanwhile, and whoever announced it reads it again; or a later read came first
        self._node_since[node_id] = begun
        self._unread.discard(node_id)
        if facts is not None:
            self._unknow(node_id)
            self._know(facts)
        self._on_read([node_id])

    async def close(self) -> None:
        """End the background work."""
        await self._background.close()
