"""The supervisor as requests and the Hub see it: closed while the node gives its machine back.

Owns who is let through, and who is sent away at the moment of closing: whoever waits for a model or a slot,
never whoever is being answered. Must not know why the node yields.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Collection
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace

from runtime.errors import NodeYields
from runtime.progress import LoadProgress
from runtime.snapshot import NodeSnapshot
from runtime.supervisor import Lease, Supervisor

OnProgress = Callable[[LoadProgress], None]


class YieldGate:
    """What of `runtime.supervisor.Supervisor` others than its owner use."""

    def __init__(self, supervisor: Supervisor) -> None:
        self._supervisor = supervisor
        self._waiting: set[asyncio.Timeout] = set()
        self.reason: str | None = None
        """Why it is closed; None while it is open."""
        self._closed_for = ""

    def close(self, reason: str) -> None:
        """Let nobody in any more; those who still wait are told so."""
        self.reason = self._closed_for = reason
        now = asyncio.get_running_loop().time()
        for scope in self._waiting:
            scope.reschedule(now)

    def open(self) -> None:
        """Let everybody in."""
        self.reason = None

    @asynccontextmanager
    async def lease(
        self, model_id: str, *, budget_s: float, share: str = "", on_progress: OnProgress | None = None
    ) -> AsyncIterator[Lease]:
        """As the supervisor's.

        Raises:
            NodeYields: the gate is closed, or was while this waited; beside what the supervisor raises.
        """
        async with AsyncExitStack() as held:
            async with self._waits():
                lease = await held.enter_async_context(
                    self._supervisor.lease(model_id, budget_s=budget_s, share=share, on_progress=on_progress)
                )
            yield lease

    async def load(self, model_id: str, *, on_progress: OnProgress | None = None) -> None:
        """As the supervisor's; raises as `lease`."""
        async with self._waits():
            await self._supervisor.load(model_id, on_progress=on_progress)

    async def unload(self, model_id: str) -> None:
        """As the supervisor's."""
        await self._supervisor.unload(model_id)

    async def pull(self, model_id: str, *, on_progress: OnProgress | None = None) -> None:
        """As the supervisor's: the disk is nobody's way."""
        await self._supervisor.pull(model_id, on_progress=on_progress)

    async def examine(self, replica_id: str) -> None:
        """As the supervisor's."""
        await self._supervisor.examine(replica_id)

    def capabilities(self, model_id: str) -> Collection[str] | None:
        """As the supervisor's."""
        return self._supervisor.capabilities(model_id)

    def snapshot(self) -> NodeSnapshot:
        """As the supervisor's, and accepting nothing while the gate is closed."""
        seen = self._supervisor.snapshot()
        return seen if self.reason is None else replace(seen, accepting=False, reason=self.reason)

    @asynccontextmanager
    async def _waits(self) -> AsyncIterator[None]:
        if self.reason is not None:
            raise NodeYields(self.reason)
        scope = asyncio.timeout(None)
        try:
            async with scope:
                self._waiting.add(scope)
                try:
                    yield
                finally:
                    self._waiting.discard(scope)
        except TimeoutError:
            if not scope.expired():
                raise
            raise NodeYields(self._closed_for) from None
