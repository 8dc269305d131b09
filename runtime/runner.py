"""One replica's engine, from its start to the return of its memory: the slow work behind Start and Stop.

An endpoint of the owner's is watched in place of a process: it is neither started nor ended.

Tells what happens as events; decides nothing. Must not know waiters or leases.
"""

import asyncio
import contextlib
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from runtime import events as ev
from runtime.backends.base import Backend, Endpoint, LaunchSpec, ReplicaPlan
from runtime.budget import Budgets
from runtime.errors import EngineFailed
from runtime.external import OwnersEndpoint
from runtime.launcher import Launcher
from runtime.memory_book import MemoryBook
from runtime.preparation import Preparation, shape_of
from runtime.process import EngineProcess

logger = logging.getLogger(__name__)

_HELD_CHECK_S = 0.25
_HELD_CHECK_LONGEST_S = 30.0
# A driver gives a dead process's memory back a moment after the process is gone.
_MEMORY_BACK_S = 3.0


@dataclass(slots=True)
class Engine:
    """A replica's engine: its process and its plan, None where the owner runs it, and where it answers."""

    model_id: str
    process: EngineProcess | None
    devices: tuple[str, ...]
    digest: str
    plan: ReplicaPlan | None
    endpoint: Endpoint | None = None


class ReplicaRunner:
    """The engines of one node; `engines` holds each from its start until its memory was looked at."""

    def __init__(
        self,
        *,
        launcher: Launcher,
        preparation: Preparation,
        budgets: Budgets,
        book: MemoryBook,
        post: Callable[[ev.Event], None],
    ) -> None:
        self.engines: dict[str, Engine] = {}
        self._launcher = launcher
        self._preparation = preparation
        self._budgets = budgets
        self._book = book
        self._post = post
        self._measuring = asyncio.Lock()

    def pids(self) -> list[int]:
        """Every process of every engine. Reads the system: call it in a thread."""
        processes = [engine.process for engine in list(self.engines.values())]
        return [pid for process in processes if process is not None for pid in process.pids()]

    async def serve(self, start: ev.Start) -> None:
        """Start a replica and wait for its end; ending it is `end`'s business, whatever happens here."""
        try:
            owners = self._preparation.endpoint(start.model_id)
            ended = await (self._serve(start) if owners is None else self._attend(start, owners))
        except EngineFailed as error:
            ended = str(error)
        event = {
            "event": "engine_ended",
            "replica": start.replica_id,
            "model": start.model_id,
            "reason": ended,
        }
        logger.warning("engine ended", extra=event)
        self._post(ev.Failed(start.replica_id, ended))

    async def _serve(self, start: ev.Start) -> str:
        backend = self._preparation.backend(start.backend)
        launch, digest, plan = self._launch(start, backend)
        process = await self._launcher.start(launch, start.model_id)
        engine = Engine(start.model_id, process, start.devices, digest, plan)
        self.engines[start.replica_id] = engine
        engine.endpoint = await self._launcher.ready(process, launch, backend)
        logger.info(
            "engine ready",
            extra={"event": "engine_ready", "replica": start.replica_id, "pid": process.pid},
        )
        self._post(ev.Started(start.replica_id))
        await asyncio.to_thread(process.look)
        return f"the engine {await process.wait()}"

    async def _attend(self, start: ev.Start, owners: OwnersEndpoint) -> str:
        """Take an endpoint of the owner's for the model, and wait until it no longer serves it."""
        endpoint = owners.at(start.model_id)
        engine = Engine(start.model_id, None, start.devices, owners.key, None, endpoint)
        self.engines[start.replica_id] = engine
        event = {"event": "endpoint_ready", "replica": start.replica_id, "endpoint": owners.name}
        logger.info("endpoint ready", extra=event)
        self._post(ev.Started(start.replica_id))
        return await owners.lost(start.model_id)

    def _launch(self, start: ev.Start, backend: Backend) -> tuple[LaunchSpec, str, ReplicaPlan]:
        known = self._preparation.known(start.model_id)
        plan = next((p for p in known.plans if p.backend == start.backend), None) if known else None
        if known is None or plan is None:
            raise EngineFailed("the weights were removed before they were loaded")
        spec = self._preparation.require(start.model_id)
        launch = backend.command(spec, known.stored, plan, start.devices)
        return launch, known.stored.digest, plan

    async def measure(self, *replica_ids: str) -> None:
        """Tell what replicas take now (all of them where none is named), and keep what is news.

        It is the most that one takes of any of its devices, by the processes that were found last. A device
        that does not tell whose its memory is, as a GPU's driver in some containers, tells nothing.
        """
        ours = [
            (replica_id, engine, engine.process)
            for replica_id, engine in self.engines.items()
            # While it loads it may hold its weights twice: that is no measure of what it takes.
            if engine.process is not None and engine.endpoint is not None
            if not replica_ids or replica_id in replica_ids
        ]
        async with self._measuring:
            taken = await asyncio.to_thread(
                lambda: [self._budgets.used_by(e.devices, process.known_pids) for _, e, process in ours]
            )
            news = [
                self._learn(replica_id, engine, memory)
                for (replica_id, engine, _), memory in zip(ours, taken, strict=True)
                if memory > 0
            ]
            if any(news):
                await asyncio.to_thread(self._book.write, self._book.content())

    def _learn(self, replica_id: str, engine: Engine, memory: int) -> bool:
        self._post(ev.Measured(replica_id, memory))
        if engine.plan is None:
            return False
        shape = shape_of(engine.digest, engine.plan, len(engine.devices))
        estimated = engine.plan.memory_on_each(len(engine.devices))
        news = self._book.learn(shape, measured=memory, estimated=estimated)
        if news and memory > estimated:
            fields = {"replica": replica_id, "measured": memory, "estimated": estimated}
            logger.warning(
                "a replica takes more than was estimated", extra={"event": "memory_over", **fields}
            )
        return news

    async def end(self, replica_id: str) -> None:
        """End the replica's processes, and see that its memory is back; says so when it comes back late."""
        engine = self.engines.get(replica_id)
        if engine is None or engine.process is None:  # it never came to a process, or the owner runs it
            self.engines.pop(replica_id, None)
            self._post(ev.Gone(replica_id))
            return
        pids = await asyncio.to_thread(engine.process.pids)
        await self.measure(replica_id)  # now it has touched all that it will
        left = await engine.process.stop()
        pids = tuple({*pids, *left})
        held = await self._held_after(engine.devices, pids)
        del self.engines[replica_id]
        reason = (
            f"processes {', '.join(map(str, left))} did not end" if left else "the driver still counts it"
        )
        self._post(ev.Gone(replica_id, held, reason if held else ""))
        if held:
            event = {"event": "memory_held", "replica": replica_id, "bytes": held, "reason": reason}
            logger.error("memory is not back", extra=event)
            await self._await_release(engine.devices, pids)
            self._post(ev.Released(replica_id))

    async def examine(self, replica_id: str) -> None:
        """Look whether an engine still answers, where somebody doubts it."""
        engine = self.engines.get(replica_id)
        if engine is None or engine.endpoint is None:
            return
        if engine.process is None:
            await self._examine_endpoint(replica_id, engine.model_id)
        elif not engine.process.alive or not await self._launcher.answers(engine.endpoint):
            self._post(ev.Failed(replica_id, "the engine does not answer"))

    async def _examine_endpoint(self, replica_id: str, model_id: str) -> None:
        owners = self._preparation.endpoint(model_id)
        if owners is None:
            return
        await owners.look()
        if not (state := owners.available(model_id)).ok:
            self._post(ev.Failed(replica_id, state.reason))

    async def end_all(self) -> None:
        """The last resort, when the node's own tasks were cancelled: nothing is measured or told."""
        for engine in list(self.engines.values()):
            if engine.process is not None:
                await engine.process.stop()
        self.engines.clear()

    async def _held_after(self, devices: Sequence[str], pids: Sequence[int]) -> int:
        """Bytes of a device the ended processes still hold, after giving the driver a moment."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_MEMORY_BACK_S):
                await self._await_release(devices, pids)
        return await asyncio.to_thread(self._budgets.used_by, devices, pids)

    async def _await_release(self, devices: Sequence[str], pids: Sequence[int]) -> None:
        pause_s = _HELD_CHECK_S
        while await asyncio.to_thread(self._budgets.used_by, devices, pids):
            await asyncio.sleep(pause_s)
            pause_s = min(_HELD_CHECK_LONGEST_S, pause_s * 2)
