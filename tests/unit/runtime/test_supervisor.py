"""The supervisor with real processes: an engine of thirty lines that starts in milliseconds."""

import asyncio
import contextlib
import hashlib
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable, Collection, Sequence
from pathlib import Path

import psutil
import pytest

from models.catalog import Catalog, FileSource, ModelSpec
from models.errors import DiskBudgetExceeded
from models.fit import MIB, MemoryEstimate
from models.store import ModelStore, StoredModel
from runtime.backends.base import Availability, EngineOptions, LaunchSpec, ReplicaPlan, Task
from runtime.devices import CpuDevice, MemoryUse
from runtime.errors import (
    EngineUnavailable,
    LoadFailed,
    ModelDoesNotFit,
    ModelUnknown,
    NodeStopping,
    Warming,
)
from runtime.process import OWNER_MARK, marked, owner_of
from runtime.progress import LoadProgress
from runtime.snapshot import DeviceKind, ModelView, ReplicaView
from runtime.supervisor import Lease, Supervisor, SupervisorSettings

ENGINE = """
import http.server, json, os, sys, threading, time
wanted = json.loads(sys.stdin.readline())
if wanted["fail"]:
    sys.exit("E the weights are rotten")
while not os.path.exists(wanted["gate"]):
    time.sleep(0.005)

class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.send_header("content-length", "0")
        self.end_headers()
    def log_message(self, *_):
        pass

server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
threading.Thread(target=server.serve_forever, daemon=True).start()
print(json.dumps({"host": "127.0.0.1", "port": server.server_port}), flush=True)
sys.stdin.read()
"""


class FakeBackend:
    name = provider = "fake"
    formats = frozenset({"gguf"})
    tasks: frozenset[Task] = frozenset({"generate", "embed"})
    protocols = frozenset({"responses"})
    device_kinds: tuple[DeviceKind, ...] = ("cpu",)

    def __init__(self, gate: Path) -> None:
        self.gate = gate
        self.started: list[str] = []
        self.failing = False
        self.estimated = 60 * MIB
        self.state = Availability(ok=True)

    def available(self) -> Availability:
        return self.state

    def plan(self, spec: ModelSpec, stored: StoredModel, options: EngineOptions) -> ReplicaPlan:
        memory = MemoryEstimate(weights=self.estimated, kv_cache=0, compute=0, overhead=0)
        return ReplicaPlan(
            self.name,
            slots=spec.slots,
            context_length=spec.context_length,
            threads=1,
            memory=memory,
            batch_tokens=1,
        )

    def command(
        self, spec: ModelSpec, stored: StoredModel, plan: ReplicaPlan, devices: Sequence[str] = ()
    ) -> LaunchSpec:
        self.started.append(spec.id)
        wanted = {"gate": str(self.gate), "fail": self.failing}
        return LaunchSpec(
            argv=(sys.executable, "-I", "-c", ENGINE),
            stdin=json.dumps(wanted).encode() + b"\n",
            protocols=self.protocols,
        )

    def explain(self, log: str) -> str:
        return log.strip().removeprefix("E ")


class FakeDevice:
    """A small machine; what engines take of it is real."""

    id = "cpu"
    kind: DeviceKind = "cpu"
    name = "a machine"

    def __init__(self, memory: int) -> None:
        self.memory_total = memory

    def memory_use(self, own_pids: Collection[int]) -> MemoryUse:
        return MemoryUse(others=0, ours=CpuDevice().memory_use(own_pids).ours)


class Node:
    """A running supervisor and what the tests ask of it."""

    def __init__(self, tmp_path: Path, *, memory: int = 100 * MIB, **settings: object) -> None:
        weights = tmp_path / "weights.gguf"
        weights.write_bytes(b"GGUF and nothing more")
        digest = hashlib.sha256(weights.read_bytes()).hexdigest()
        source = FileSource(path=str(weights))
        specs = [
            ModelSpec(id=name, name=name, source=source, sha256=digest, context_length=64, slots=2)
            for name in ("one", "two")
        ]
        self.store = ModelStore(tmp_path / "models", budget_bytes=1000)
        self.gate = tmp_path / "gate"
        self.backend = FakeBackend(self.gate)
        self.state_dir = tmp_path / "state"
        self._changed = asyncio.Event()
        self.supervisor = Supervisor(
            catalog=Catalog(specs),
            store=self.store,
            backends=[self.backend],
            devices=[FakeDevice(memory)],
            settings=SupervisorSettings(state_dir=self.state_dir, **settings),  # type: ignore[arg-type]
            on_change=self._changed.set,
        )

    def open_gate(self) -> None:
        self.gate.touch()

    def model(self, name: str = "one") -> ModelView:
        return next(model for model in self.supervisor.snapshot().models if model.model == name)

    async def until(self, condition: Callable[[], bool]) -> None:
        """Look at every change, and now and then: a process is born without the supervisor being told."""
        while not condition():
            self._changed.clear()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._changed.wait(), 0.02)

    def engines(self) -> set[psutil.Process]:
        return marked(OWNER_MARK, owner_of(self.state_dir))


@contextlib.asynccontextmanager
async def running(
    tmp_path: Path, *, gate: bool = True, memory: int = 100 * MIB, **settings: object
) -> AsyncIterator[Node]:
    node = Node(tmp_path, memory=memory, **settings)
    if gate:
        node.open_gate()
    task = asyncio.create_task(node.supervisor.run())
    try:
        yield node
    finally:
        await node.supervisor.stop()
        await task
        assert node.engines() == set()


def lease(
    node: Node, model: str = "one", budget_s: float = 30.0
) -> contextlib.AbstractAsyncContextManager[Lease]:
    return node.supervisor.lease(model, budget_s=budget_s)


async def test_one_load_however_many_wait(tmp_path: Path) -> None:
    async with running(tmp_path) as node:

        async def use() -> str:
            async with lease(node) as held:
                assert len(node.supervisor.snapshot().replicas[0].id) > 0
                return held.replica_id

        replicas = await asyncio.gather(*(use() for _ in range(20)))
        assert node.backend.started == ["one"]
        assert len(set(replicas)) == 1
        assert node.model().state == "ready"
        assert node.supervisor.snapshot().replicas[0].running == 0


async def test_slots_bound_what_runs_and_a_cancelled_lease_gives_its_slot_back(tmp_path: Path) -> None:
    async with running(tmp_path) as node, lease(node), lease(node):
        third, fourth = (asyncio.create_task(hold(node)) for _ in range(2))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        third.cancel()
        with pytest.raises(asyncio.CancelledError):
            await third
        assert not fourth.done()
        view = node.supervisor.snapshot().replicas[0]
        assert view.running == 2
        fourth.cancel()
        with pytest.raises(asyncio.CancelledError):
            await fourth
    assert node.backend.started == ["one"]


async def test_a_slot_that_comes_free_goes_to_the_organisation_that_holds_fewer(tmp_path: Path) -> None:
    order: list[str] = []

    async def use(node: Node, share: str, *, until: asyncio.Event | None = None) -> None:
        async with node.supervisor.lease("one", budget_s=30, share=share):
            order.append(share)
            if until is not None:
                await until.wait()

    first, last = asyncio.Event(), asyncio.Event()
    async with running(tmp_path) as node, asyncio.TaskGroup() as everybody:
        for until in (first, last):
            everybody.create_task(use(node, "many", until=until))
        await node.until(lambda: len(order) == 2)
        everybody.create_task(use(node, "many"))
        await node.until(lambda: node.supervisor.snapshot().replicas[0].waiting == 1)
        everybody.create_task(use(node, "few"))
        await node.until(lambda: node.supervisor.snapshot().replicas[0].waiting == 2)
        first.set()
        await node.until(lambda: len(order) == 4)
        last.set()
    assert order == ["many", "many", "few", "many"]


async def test_a_line_that_waits_gets_another_replica_where_the_owner_allows_it(tmp_path: Path) -> None:
    roomy = running(tmp_path, max_replicas=2, memory=200 * MIB)
    async with roomy as node, lease(node) as first, lease(node):
        async with lease(node) as third:
            assert third.replica_id != first.replica_id
        assert node.backend.started == ["one", "one"]


async def hold(node: Node, model: str = "one") -> None:
    async with lease(node, model):
        await asyncio.Event().wait()


async def test_a_lease_ends_with_its_block_however_the_block_ends(tmp_path: Path) -> None:
    async with running(tmp_path) as node:
        for _ in range(5):
            with pytest.raises(ZeroDivisionError):
                await break_within(node)
        async with lease(node):
            (view,) = node.supervisor.snapshot().replicas
            assert view.running == 1
            assert view.tokens_per_second == pytest.approx(20.0)


async def break_within(node: Node) -> None:
    async with lease(node) as held:
        held.report(10, 0.5)
        raise ZeroDivisionError


async def test_a_waiter_out_of_time_is_told_the_progress_and_the_load_goes_on(tmp_path: Path) -> None:
    async with running(tmp_path, gate=False) as node:
        with pytest.raises(Warming) as told:
            async with lease(node, budget_s=0.2):
                pass
        assert told.value.progress.phase == "loading"
        assert node.model().state == "warming"
        node.open_gate()
        async with lease(node):
            assert node.backend.started == ["one"]


async def test_the_last_waiter_takes_a_starting_engine_with_it(tmp_path: Path) -> None:
    async with running(tmp_path, gate=False) as node:
        waiter = asyncio.create_task(hold(node))
        await node.until(lambda: node.supervisor.snapshot().replicas[:1] != () and bool(node.engines()))
        waiter.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiter
        await node.until(lambda: node.supervisor.snapshot().replicas == ())
        assert node.engines() == set()
        assert node.model().state == "cold"


async def test_a_killed_engine_is_noticed_and_the_next_request_reloads(tmp_path: Path) -> None:
    async with running(tmp_path) as node:
        async with lease(node) as first:
            (view,) = node.supervisor.snapshot().replicas
            assert view.pid is not None
            os.kill(view.pid, signal.SIGKILL)
            await node.until(lambda: node.model().state == "cold")
        async with lease(node) as second:
            assert second.replica_id != first.replica_id
        assert node.backend.started == ["one", "one"]


async def test_an_engine_that_hangs_is_replaced_once_somebody_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("runtime.launcher._CHECK_TIMEOUT_S", 0.1)
    monkeypatch.setattr("runtime.process._TERM_S", 0.1)
    async with running(tmp_path) as node:
        async with lease(node) as held:
            await node.supervisor.examine(held.replica_id)  # a false alarm
        (view,) = node.supervisor.snapshot().replicas
        assert view.pid is not None
        os.kill(view.pid, signal.SIGSTOP)
        await node.supervisor.examine(view.id)
        async with lease(node) as second:
            assert second.replica_id != view.id


async def test_a_failed_start_says_why_and_is_not_repeated_at_once(tmp_path: Path) -> None:
    async with running(tmp_path) as node:
        node.backend.failing = True
        with pytest.raises(LoadFailed, match="the weights are rotten") as failed:
            await hold(node)
        assert failed.value.retry_after_s == pytest.approx(5.0, abs=0.5)
        with pytest.raises(LoadFailed):
            await hold(node)
        assert node.backend.started == ["one"]
        assert node.model().phase == "failed"
        assert "rotten" in (node.model().error or "")
        node.backend.failing = False
        await node.supervisor.load("one")  # the owner's own wish ignores the cool-down
        assert node.model().error is None


async def test_an_idle_model_makes_room_for_another_and_a_busy_one_does_not(tmp_path: Path) -> None:
    async with running(tmp_path) as node:
        async with lease(node, "one"):
            with pytest.raises(Warming) as told:
                async with lease(node, "two", budget_s=0.2):
                    pass
            assert told.value.progress.phase == "queued"
        async with lease(node, "two"):
            assert node.model("one").state == "cold"
        assert len(await asyncio.to_thread(node.engines)) == 1


async def test_an_idle_model_is_unloaded(tmp_path: Path) -> None:
    async with running(tmp_path, idle_ttl_s=0.05) as node:
        await node.supervisor.load("one")
        await node.until(lambda: node.supervisor.snapshot().replicas == ())
        assert node.model().on_disk


async def test_unload_waits_for_what_is_being_answered(tmp_path: Path) -> None:
    async with running(tmp_path) as node:
        async with lease(node):
            unloading = asyncio.create_task(node.supervisor.unload("one"))
            await node.until(lambda: node.supervisor.snapshot().replicas[0].state == "draining")
            assert not unloading.done()
        await unloading
        assert node.supervisor.snapshot().replicas == ()
        assert node.engines() == set()


def can_make_room(node: Node) -> bool:
    """Whether a pull that needs the whole budget would get it."""
    try:
        node.store.reserve(
            ModelSpec(id="big", name="", source=FileSource(path="/x"), context_length=1), kept=1000
        )
    except DiskBudgetExceeded:
        return False
    return True


async def test_weights_that_are_loaded_or_being_loaded_make_no_room(tmp_path: Path) -> None:
    async with running(tmp_path, gate=False) as node:
        loading = asyncio.create_task(node.supervisor.load("one"))
        await node.until(lambda: bool(node.engines()))
        (tmp_path / "weights.gguf").unlink()  # the store's link is the only one now, and counts
        assert not can_make_room(node)
        node.open_gate()
        await loading
        assert node.model().state == "ready"
        assert not can_make_room(node)
        assert node.store.marks.used("one") > 0
        await node.supervisor.unload("one")
        assert can_make_room(node)
        assert node.store.list() == []


async def test_a_load_that_is_given_up_lets_its_weights_go(tmp_path: Path) -> None:
    async with running(tmp_path, gate=False) as node:
        waiting = asyncio.create_task(hold(node))
        await node.until(lambda: bool(node.engines()))
        (tmp_path / "weights.gguf").unlink()
        waiting.cancel()
        await node.until(lambda: not node.supervisor.snapshot().replicas)
        assert can_make_room(node)


async def test_a_stopped_node_holds_nothing(tmp_path: Path) -> None:
    async with running(tmp_path) as node:
        await node.supervisor.load("one")
        (tmp_path / "weights.gguf").unlink()
        assert not can_make_room(node)
    assert can_make_room(node)


async def test_pull_loads_nothing(tmp_path: Path) -> None:
    async with running(tmp_path) as node:
        seen: list[LoadProgress] = []
        node.backend.state = Availability(ok=False, reason="no engine", remedy="install it")
        await node.supervisor.pull("one", on_progress=seen.append)
        assert node.model().on_disk
        assert node.model().digest
        assert node.backend.started == []
        assert seen
        with pytest.raises(EngineUnavailable, match="install it"):
            await hold(node)


@pytest.fixture
def watched(monkeypatch: pytest.MonkeyPatch) -> None:
    """The disk is looked at all the time."""
    monkeypatch.setattr("runtime.supervisor._WATCH_EVERY_S", 0.01)


MISSING = Availability(ok=False, reason="no engine", remedy="install it")


@pytest.mark.usefixtures("watched")
async def test_without_an_engine_nothing_is_offered_and_the_reason_is_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with running(tmp_path) as node:
        await node.supervisor.pull("one")
        await node.until(lambda: node.model().fits)
        node.backend.state = MISSING
        await node.until(lambda: not node.supervisor.snapshot().accepting)
        assert node.supervisor.snapshot().reason == "no engine (install it)"
        assert not node.model().fits
        warned = [record for record in caplog.records if record.levelname == "WARNING"]
        assert [record.reason for record in warned] == ["no engine"]
        node.backend.state = Availability(ok=True)
        await node.until(lambda: node.supervisor.snapshot().accepting)
        assert node.model().fits


@pytest.mark.usefixtures("watched")
async def test_what_is_loaded_stays_offered_while_its_engine_is_being_replaced(tmp_path: Path) -> None:
    async with running(tmp_path) as node, lease(node):
        await node.supervisor.pull("two")
        await node.until(lambda: node.model("two").fits)
        node.backend.state = MISSING
        await node.until(lambda: not node.model("two").fits)
        assert node.model().fits
        assert node.supervisor.snapshot().accepting


async def test_what_it_does_not_have_or_cannot_hold(tmp_path: Path) -> None:
    async with running(tmp_path, ram_budget_bytes=10 * MIB, offered=("one",)) as node:
        with pytest.raises(ModelUnknown):
            await hold(node, "two")
        with pytest.raises(ModelDoesNotFit):
            await hold(node)
        assert not node.model().fits
        assert [model.model for model in node.supervisor.snapshot().models] == ["one"]
        assert node.supervisor.capabilities("one") == {"chat", "completions", "responses"}
        assert node.supervisor.capabilities("two") is node.supervisor.capabilities("three") is None


@pytest.mark.usefixtures("watched")
async def test_what_an_engine_speaks_is_offered_while_it_is_here(tmp_path: Path) -> None:
    async with running(tmp_path) as node:
        await node.supervisor.pull("two")
        async with lease(node) as held:
            assert held.endpoint.protocols == {"responses"}
            assert "responses" in node.model("two").capabilities
            node.backend.state = MISSING
            await node.until(lambda: "responses" not in node.model("two").capabilities)
            assert "responses" in node.model().capabilities, "it is loaded"


async def test_stop_drains_for_a_while_and_then_cuts(tmp_path: Path) -> None:
    node = Node(tmp_path)
    node.open_gate()
    task = asyncio.create_task(node.supervisor.run())
    async with lease(node):
        stopping = asyncio.create_task(node.supervisor.stop(drain_s=30))
        await node.until(lambda: not node.supervisor.snapshot().accepting)
        with pytest.raises(NodeStopping):
            await hold(node)
        assert not stopping.done()
        assert len(await asyncio.to_thread(node.engines)) == 1
    await asyncio.gather(stopping, task)
    assert node.engines() == set()
    with pytest.raises(NodeStopping):
        await hold(node)


async def test_cancelling_it_leaves_no_engine(tmp_path: Path) -> None:
    node = Node(tmp_path)
    task = asyncio.create_task(node.supervisor.run())
    waiter = asyncio.create_task(hold(node))
    await node.until(lambda: bool(node.engines()))
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    with pytest.raises(NodeStopping):
        await waiter
    assert node.engines() == set()


def replica(node: Node) -> ReplicaView | None:
    return next(iter(node.supervisor.snapshot().replicas), None)


async def test_what_an_engine_takes_counts_at_once_and_is_reserved_after_a_restart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("runtime.supervisor._WATCH_EVERY_S", 0.02)
    async with running(tmp_path) as node:
        node.backend.estimated = MIB
        await node.supervisor.load("one")
        await node.until(lambda: bool((view := replica(node)) and view.measured_bytes > 0))
        view, device = replica(node), node.supervisor.snapshot().devices[0]
        assert view is not None
        assert view.reserved_bytes == MIB < view.measured_bytes
        assert device.memory_reserved >= view.measured_bytes
    async with running(tmp_path) as node:
        node.backend.estimated = MIB
        await node.supervisor.load("one")
        after = replica(node)
        assert after is not None
        assert after.reserved_bytes >= view.measured_bytes


async def test_a_replica_that_goes_before_it_was_looked_at_is_measured_at_its_end(tmp_path: Path) -> None:
    async with running(tmp_path) as node:
        node.backend.estimated = MIB
        await node.supervisor.load("one")
        await node.supervisor.unload("one")
        await node.supervisor.load("one")
        view = replica(node)
        assert view is not None
        assert view.reserved_bytes > 4 * MIB


async def test_an_engine_that_takes_what_is_not_there_has_the_next_model_refused(tmp_path: Path) -> None:
    """Known to take more than the machine has, it is not started again, and the reason has the numbers."""
    async with running(tmp_path, ram_budget_bytes=4 * MIB) as node:
        node.backend.estimated = MIB
        await node.supervisor.load("one")
        await node.supervisor.unload("one")
        with pytest.raises(ModelDoesNotFit, match=r"it needs .* MB and at most 4 MB can be had"):
            await node.supervisor.load("one")
        assert not node.model().fits
