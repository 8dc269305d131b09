"""The async shell around the scheduler: one task owns its state, slow work runs in child tasks.

Whatever a child learns comes back as an event; whatever the scheduler decides becomes a child, an answer or a
cancellation. Must not know the tunnel, the Hub or HTTP frameworks.
"""

import asyncio
import contextlib
import itertools
import logging
from collections.abc import AsyncIterator, Callable, Collection, Coroutine, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from models.catalog import Catalog
from models.store import ModelStore
from runtime import events as ev
from runtime.backends.base import Backend, Endpoint, EngineOptions
from runtime.budget import Budgets, DeviceReading
from runtime.devices import Device
from runtime.errors import EngineUnavailable, EngineUnreachable, LoadFailed, ModelUnknown, NodeStopping
from runtime.events import Need
from runtime.external import OwnersEndpoint
from runtime.launcher import Launcher
from runtime.memory_book import MemoryBook
from runtime.preparation import Preparation
from runtime.progress import LoadProgress
from runtime.runner import ReplicaRunner
from runtime.scheduler import Scheduler, SchedulerLimits
from runtime.snapshot import DeviceView, ModelView, NodeSnapshot, ReplicaView
from runtime.survey import backends_of, survey

__all__ = [
    "DeviceView",
    "Lease",
    "ModelView",
    "NodeSnapshot",
    "ReplicaView",
    "Supervisor",
    "SupervisorSettings",
]

logger = logging.getLogger(__name__)

_WATCH_EVERY_S = 5.0
_FOREVER = float("inf")

ProgressCallback = Callable[[LoadProgress], None]


@dataclass(frozen=True, slots=True)
class SupervisorSettings:
    """What the owner decides.

    Attributes:
        state_dir: logs of the engines and the mark by which strays are found. One running node per directory.
        offered: ids of the models to offer; None offers all of the catalog.
        model_engines: the engine for a model, where the owner named one.
        idle_ttl_s: seconds a replica may be idle before it is unloaded.
        ram_budget_bytes: most memory engines may take on the CPU; None leaves a tenth of it to the machine.
        vram_budget_bytes: the same for each GPU.
        waiting_per_model: requests that may wait for one model's load or slots.
        max_replicas: replicas of one model, where its line waits and memory is free.
        download_bytes_per_s: most that a model's download may take of the line; None for all there is.
        engine: options given to every engine.
    """

    state_dir: Path
    offered: tuple[str, ...] | None = None
    model_engines: Mapping[str, str] = field(default_factory=dict)
    idle_ttl_s: float = 600.0
    ram_budget_bytes: int | None = None
    vram_budget_bytes: int | None = None
    waiting_per_model: int = 128
    max_replicas: int = 1
    download_bytes_per_s: float | None = None
    engine: EngineOptions = field(default_factory=EngineOptions)


@dataclass(frozen=True, slots=True)
class Lease:
    """The right to send ONE request to one replica; it ends with the `async with` block.

    Attributes:
        report: tell the completion tokens of the request and the seconds it took, for `tokens_per_second`.
    """

    replica_id: str
    model_id: str
    model_digest: str
    endpoint: Endpoint
    report: Callable[[int, float], None]


@dataclass(frozen=True, slots=True)
class _Waiting:
    """Who waits for an answer of the scheduler."""

    answer: asyncio.Future[str | None]
    on_progress: ProgressCallback | None


class Supervisor:
    """Loads, serves and unloads models; see `runtime/DESIGN.md`."""

    def __init__(
        self,
        *,
        catalog: Catalog,
        store: ModelStore,
        backends: Sequence[Backend],
        devices: Sequence[Device],
        settings: SupervisorSettings,
        endpoints: Sequence[OwnersEndpoint] = (),
        on_change: Callable[[], None] = lambda: None,
    ) -> None:
        limits = SchedulerLimits(
            idle_ttl_s=settings.idle_ttl_s,
            waiting_per_model=settings.waiting_per_model,
            max_replicas=settings.max_replicas,
        )
        self._scheduler = Scheduler(limits)
        self._book = MemoryBook(settings.state_dir)
        self._preparation = Preparation(
            catalog=catalog,
            store=store,
            backends=backends,
            options=settings.engine,
            book=self._book,
            offered=settings.offered,
            model_engines=settings.model_engines,
            endpoints=endpoints,
            bytes_per_s=settings.download_bytes_per_s,
        )
        self._budgets = Budgets(devices, ram=settings.ram_budget_bytes, vram=settings.vram_budget_bytes)
        self._launcher = Launcher(settings.state_dir)
        self._runner = ReplicaRunner(
            launcher=self._launcher,
            preparation=self._preparation,
            budgets=self._budgets,
            book=self._book,
            post=self._post,
        )
        self._on_change = on_change
        self._inbox: asyncio.Queue[ev.Event] = asyncio.Queue()
        self._posted = self._taken = 0
        self._waiting: dict[str, _Waiting] = {}
        self._waiter_ids = (f"waiter-{number}" for number in itertools.count(1))
        self._jobs: dict[str, asyncio.Task[None]] = {}
        self._readings: tuple[DeviceReading, ...] = ()
        self._tasks: asyncio.TaskGroup | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._turns: set[asyncio.Future[None]] = set()
        self._closed = False
        self.looked_around = asyncio.Event()
        """Set once the devices and the disk were looked at: before, a snapshot says that nothing fits."""

    # -- what the node asks

    async def run(self) -> None:
        """Own the state until `stop`, or until cancelled; either way no engine is left behind."""
        try:
            opening = asyncio.to_thread(self._book.open)
            await asyncio.gather(self._launcher.end_strays(), self._launcher.guard(), opening)
            await self._look_around()
            self.looked_around.set()
            async with asyncio.TaskGroup() as self._tasks:
                watcher = self._tasks.create_task(self._watch())
                await self._own()
                for task in (watcher, *self._jobs.values()):
                    task.cancel()
        finally:
            self._closed = True
            self.looked_around.set()  # nobody is to wait for what will not come
            if self._timer is not None:
                self._timer.cancel()
            self._dismiss()
            await self._runner.end_all()
            self._launcher.unguard()
            self._preparation.holds.keep_only(())

    async def stop(self, *, drain_s: float = 0.0) -> None:
        """End every engine, verified; waits up to `drain_s` seconds for requests that are being answered."""
        if self._tasks is None:
            self._closed = True
        if drain_s > 0:
            self._post(ev.StopAsked())
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(drain_s):
                    await self._until(lambda: not self._scheduler.replicas)
        self._post(ev.StopAsked(cut=True))
        await self._until(lambda: self._scheduler.stopping and not self._scheduler.replicas)

    @asynccontextmanager
    async def lease(
        self, model_id: str, *, budget_s: float, share: str = "", on_progress: ProgressCallback | None = None
    ) -> AsyncIterator[Lease]:
        """Make the model ready, wait for a slot, and hold it for the length of the block.

        Args:
            model_id: catalog id.
            budget_s: seconds to wait for load and slot together.
            share: the organisation that asks: slots go round between them.
            on_progress: called as the load goes on.

        Raises:
            ModelUnknown, ModelDoesNotFit, EngineUnavailable, Warming, Overloaded, LoadFailed, NodeStopping
        """
        self._require_servable(model_id)
        spent: list[tuple[int, float]] = [(0, 0.0)]
        waiter_id = next(self._waiter_ids)
        try:
            replica_id = await self._obtain(
                waiter_id, model_id, Need.SLOT, budget_s, on_progress, share=share
            )
            yield self._lease(replica_id, model_id, lambda tokens, seconds: spent.append((tokens, seconds)))
        finally:
            tokens, seconds = spent[-1]
            self._post(ev.Left(waiter_id, tokens, seconds))

    def snapshot(self) -> NodeSnapshot:
        """The node as it is now. Cheap and synchronous."""
        engines = self._runner.engines.items()
        pids = {replica_id: engine.process.pid for replica_id, engine in engines if engine.process}
        return survey(self._scheduler, self._preparation, self._readings, pids)

    def capabilities(self, model_id: str) -> Collection[str] | None:
        """What an offered model can do; None for a model that is not offered. As cheap as a look-up."""
        try:
            spec = self._preparation.require(model_id)
        except ModelUnknown:
            return None
        return self._preparation.capabilities(spec, backends_of(self._scheduler, model_id))

    async def load(self, model_id: str, *, on_progress: ProgressCallback | None = None) -> None:
        """Make the model ready and keep it for `idle_ttl_s`; returns when it is. Raises as `lease`."""
        self._require_servable(model_id)
        await self._ask(model_id, Need.READY, on_progress)

    async def unload(self, model_id: str) -> None:
        """Drain and stop the model's replicas; returns once their memory is back (or known not to be).

        Raises:
            ModelUnknown: not an offered model.
        """
        self._preparation.require(model_id)
        leaving = {r.id for r in self._scheduler.replicas.values() if r.model_id == model_id}
        self._post(ev.UnloadAsked(model_id))
        await self._until(lambda: not leaving & self._scheduler.replicas.keys())

    async def pull(self, model_id: str, *, on_progress: ProgressCallback | None = None) -> None:
        """Bring the model's weights onto the disk without loading them.

        Raises:
            ModelUnknown, LoadFailed, NodeStopping
        """
        self._preparation.require(model_id)
        self._preparation.require_weights(model_id)
        await self._ask(model_id, Need.DISK, on_progress)

    async def examine(self, replica_id: str) -> None:
        """The relay saw the engine's connection die: look whether it still answers, and replace it if not."""
        if not self._closed:
            await self._runner.examine(replica_id)

    # -- waiters

    def _require_servable(self, model_id: str) -> None:
        spec = self._preparation.require(model_id)
        demand = self._scheduler.models.get(model_id)
        if demand is None or not demand.is_ready:
            self._preparation.require_engine(spec)

    async def _ask(self, model_id: str, need: Need, on_progress: ProgressCallback | None) -> None:
        waiter_id = next(self._waiter_ids)
        try:
            await self._obtain(waiter_id, model_id, need, _FOREVER, on_progress)
        finally:
            self._post(ev.Left(waiter_id))

    async def _obtain(
        self,
        waiter_id: str,
        model_id: str,
        need: Need,
        budget_s: float,
        on_progress: ProgressCallback | None,
        *,
        share: str = "",
    ) -> str:
        if self._closed:
            raise NodeStopping("the node is shutting down")
        loop = asyncio.get_running_loop()
        waiting = _Waiting(loop.create_future(), on_progress)
        self._waiting[waiter_id] = waiting
        self._post(ev.Wanted(waiter_id, model_id, loop.time() + budget_s, need, share))
        try:
            return await waiting.answer or ""
        finally:
            self._waiting.pop(waiter_id, None)

    def _lease(self, replica_id: str, model_id: str, report: Callable[[int, float], None]) -> Lease:
        engine = self._runner.engines.get(replica_id)
        if engine is None or engine.endpoint is None:  # it died between the grant and now
            raise EngineUnreachable(f"the engine of {model_id!r} has just ended")
        return Lease(replica_id, model_id, engine.digest, engine.endpoint, report)

    def _dismiss(self) -> None:
        """Answer everybody who still waits: nobody else will."""
        for waiting in self._waiting.values():
            if not waiting.answer.done():
                waiting.answer.set_exception(NodeStopping("the node is shutting down"))
        self._end_turn()

    # -- the owner of the state

    def _post(self, event: ev.Event) -> None:
        self._posted += 1
        self._inbox.put_nowait(event)

    async def _own(self) -> None:
        while not (self._scheduler.stopping and not self._scheduler.replicas):
            self._take(await self._inbox.get())
            self._taken += 1
            self._end_turn()

    def _take(self, event: ev.Event) -> None:
        effects = self._scheduler.handle(event, asyncio.get_running_loop().time())
        for effect in effects:
            self._carry_out(effect)
        self._arm_timer()
        # A slot taken or given back is no news: status reports are sent often enough for that.
        if not isinstance(event, ev.Wanted | ev.Left | ev.Tick) or any(
            not isinstance(effect, ev.Grant) for effect in effects
        ):
            self._preparation.holds.keep_only(self._in_use())
            self._on_change()

    def _in_use(self) -> set[str]:
        """The models that are loaded, or being loaded."""
        loading = {model.model_id for model in self._scheduler.models.values() if model.load is not None}
        return loading | {replica.model_id for replica in self._scheduler.replicas.values()}

    def _carry_out(self, effect: ev.Effect) -> None:
        match effect:
            case ev.Grant(waiter_id, replica_id):
                if (waiting := self._waiting.get(waiter_id)) and not waiting.answer.done():
                    waiting.answer.set_result(replica_id)
            case ev.Refuse(waiter_id, fault):
                if (waiting := self._waiting.get(waiter_id)) and not waiting.answer.done():
                    waiting.answer.set_exception(fault)
            case ev.Announce(waiter_ids, progress):
                self._tell(waiter_ids, progress)
            case _:
                self._begin(effect)

    def _begin(self, effect: ev.Prepare | ev.CancelPrepare | ev.Start | ev.Stop) -> None:
        match effect:
            case ev.Prepare(load_id, model_id):
                self._job(load_id, self._prepare(load_id, model_id))
            case ev.CancelPrepare(load_id):
                if job := self._jobs.get(load_id):
                    job.cancel()
            case ev.Start(replica_id):
                self._job(replica_id, self._runner.serve(effect))
            case ev.Stop(replica_id):
                self._job(f"end {replica_id}", self._end(replica_id))

    def _tell(self, waiter_ids: Sequence[str], progress: LoadProgress) -> None:
        for waiter_id in waiter_ids:
            waiting = self._waiting.get(waiter_id)
            if waiting is not None and waiting.on_progress is not None:
                waiting.on_progress(progress)

    def _arm_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        due = self._scheduler.next_deadline()
        if due is not None and not self._scheduler.stopping:
            self._timer = asyncio.get_running_loop().call_at(due, self._post, ev.Tick())

    async def _until(self, condition: Callable[[], bool]) -> None:
        """Wait until the events posted so far, and whatever they lead to, make the condition true."""
        posted = self._posted
        while not (self._taken >= posted and condition()) and not self._closed:
            turn = asyncio.get_running_loop().create_future()
            self._turns.add(turn)
            await turn

    def _end_turn(self) -> None:
        for turn in self._turns:
            if not turn.done():
                turn.set_result(None)
        self._turns.clear()

    # -- slow work, each in a task of its own

    def _job(self, name: str, work: Coroutine[None, None, None]) -> None:
        assert self._tasks is not None
        job = self._tasks.create_task(work, name=name)
        self._jobs[name] = job
        job.add_done_callback(lambda _: self._jobs.pop(name, None))

    async def _prepare(self, load_id: str, model_id: str) -> None:
        spec = self._preparation.require(model_id)
        try:
            offers = await self._preparation.prepare(
                spec, lambda progress: self._post(ev.Progressed(load_id, progress))
            )
        except LoadFailed as error:
            event = {"event": "load_failed", "model": model_id, "reason": error.reason}
            logger.warning("a model cannot be loaded", extra=event)
            self._post(ev.PrepareFailed(load_id, error.reason))
            return
        except EngineUnavailable as error:
            self._post(ev.PrepareFailed(load_id, error.reason, error))
            return
        await self._measure()
        self._post(ev.Prepared(load_id, offers))

    async def _end(self, replica_id: str) -> None:
        if job := self._jobs.get(replica_id):
            job.cancel()
            await asyncio.wait({job})
        await self._runner.end(replica_id)

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(_WATCH_EVERY_S)
            await self._look_around()

    async def _look_around(self) -> None:
        await asyncio.gather(
            asyncio.to_thread(self._preparation.refresh), self._preparation.look_at_endpoints()
        )
        await self._measure()
        await self._runner.measure()
        await self._launcher.guard()

    async def _measure(self) -> None:
        """Read the devices; the scheduler hears of it before whatever is posted next."""
        self._readings = await asyncio.to_thread(lambda: self._budgets.read(self._runner.pids()))
        self._post(ev.DevicesChanged(tuple(reading.capacity for reading in self._readings)))
