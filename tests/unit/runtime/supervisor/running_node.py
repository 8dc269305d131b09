"""A supervisor with real processes: an engine of thirty lines that starts in milliseconds."""

import asyncio
import contextlib
import hashlib
import json
import sys
from collections.abc import AsyncIterator, Callable, Collection, Sequence
from pathlib import Path

import psutil

from models.catalog import Catalog, FileSource, ModelSpec
from models.fit import MIB, MemoryEstimate
from models.store import ModelStore, StoredModel
from runtime.backends.base import Availability, EngineOptions, LaunchSpec, ReplicaPlan, Task
from runtime.devices import CpuDevice, MemoryUse
from runtime.process import OWNER_MARK, marked, owner_of
from runtime.snapshot import DeviceKind, ModelView
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


async def hold(node: Node, model: str = "one") -> None:
    async with lease(node, model):
        await asyncio.Event().wait()
