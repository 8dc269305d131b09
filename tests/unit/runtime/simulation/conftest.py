"""The world around the scheduler on a virtual clock: devices, engines, clients. It keeps its own books.

Nothing here sleeps or does I/O: an hour of a busy node takes moments. What must never happen is looked for
after every event, by what the world itself has seen, not by what the scheduler says of itself.
"""

import heapq
import itertools
import random
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest

from runtime import events as ev
from runtime.errors import RuntimeFault, Warming
from runtime.events import Need
from runtime.placement import Capacity, Offer
from runtime.scheduler import Scheduler, SchedulerLimits
from runtime.snapshot import DeviceKind

STOP_S = 0.5


@dataclass(frozen=True)
class Model:
    """What a model takes; what it `takes` once it runs may be more, and is measured.

    `starts_badly` and `crashes` are chances of a start and of a run of it.
    """

    name: str
    memory: int
    load_s: float = 1.0
    slots: int = 2
    kind: DeviceKind = "cpu"
    devices: int = 1
    takes: int = 0
    starts_badly: float = 0.0
    crashes: float = 0.0


@dataclass
class Client:
    """One request, and what became of it."""

    id: str
    model: str
    arrived: float
    takes_s: float
    deadline: float
    need: Need
    share: str
    granted: float | None = None
    fault: RuntimeFault | None = None
    left: bool = False

    @property
    def answered(self) -> bool:
        return self.granted is not None or self.fault is not None


@dataclass
class Engine:
    """A replica as the world sees it."""

    model: Model
    devices: tuple[str, ...]
    ready: bool = False
    dead: bool = False
    stopping: bool = False
    running: set[str] = field(default_factory=set)

    @property
    def memory(self) -> int:
        return max(self.model.memory, self.model.takes if self.ready else 0)


class World:
    """Runs one scheduler. `want` makes clients, `at` anything else; then `run`."""

    def __init__(
        self,
        models: list[Model],
        devices: dict[str, tuple[DeviceKind, int]],
        limits: SchedulerLimits | None = None,
        seed: int = 0,
    ) -> None:
        self.limits = limits or SchedulerLimits()
        self.scheduler = Scheduler(self.limits)
        self.models = {model.name: model for model in models}
        self.devices = dict(devices)
        self.chance = random.Random(seed)
        self.now = 0.0
        self.clients: dict[str, Client] = {}
        self.waiting: list[Client] = []
        self.engines: dict[str, Engine] = {}
        self.held: dict[str, tuple[tuple[str, ...], int]] = {}
        self.preparing: dict[str, str] = {}
        self.placing: dict[str, float] = {}
        self.ready: list[tuple[float, str]] = []
        self.longest_placing_s = 0.0
        self.loads: list[tuple[float, str]] = []
        self.prepare_s = 0.1
        self.loses_network = self.keeps_memory = 0.0
        self.on_done: Callable[[Client], None] = lambda client: None
        self._warmed_until: dict[str, float] = {}
        self._numbers = itertools.count(1)
        self._agenda: list[tuple[float, int, Callable[[], None]]] = []
        self._closing = False

    # -- what a test says

    def at(self, time: float, act: Callable[[], None]) -> None:
        heapq.heappush(self._agenda, (time, next(self._numbers), act))

    def want(
        self,
        at: float,
        model: str,
        *,
        takes_s: float = 1.0,
        patience_s: float = float("inf"),
        leaves_after_s: float | None = None,
        need: Need = Need.SLOT,
        share: str = "",
    ) -> None:
        client = Client(f"c{next(self._numbers)}", model, at, takes_s, at + patience_s, need, share)
        self.at(at, lambda: self._arrive(client))
        if leaves_after_s is not None:
            self.at(at + leaves_after_s, lambda: self._give_up(client))

    def resize(self, device: str, budget: int) -> None:
        self.devices[device] = (self.devices[device][0], budget)
        self.report_devices()

    def report_devices(self) -> None:
        self.send(ev.DevicesChanged(tuple(Capacity(d, kind, b) for d, (kind, b) in self.devices.items())))

    def crash(self, replica_id: str) -> None:
        engine = self.engines.get(replica_id)
        if engine is None or engine.stopping or not engine.ready:
            return
        engine.dead = True
        cut, engine.running = engine.running, set()
        self.send(ev.Failed(replica_id, "killed"))
        for client_id in sorted(cut):
            self.send(ev.Left(client_id))

    def run(self) -> None:
        """Let time pass until nothing is left to happen; then everybody must have been answered."""
        self.report_devices()
        while True:
            due = self.scheduler.next_deadline()
            if due is not None and (not self._agenda or due <= self._agenda[0][0]):
                self.now = max(self.now, due)
                self.send(ev.Tick())
                due = self.scheduler.next_deadline()
                assert due is None or due > self.now, "a tick left something undone"
            elif self._agenda:
                self.now, _, act = heapq.heappop(self._agenda)
                act()
            else:
                break
        waiting = [c.id for c in self.clients.values() if not c.answered and not c.left]
        assert not waiting, f"deadlock: {waiting} wait, and nothing will ever happen"

    def shut_down(self) -> None:
        """Whatever is going on: everything ends."""
        self._closing = True
        self.send(ev.StopAsked(cut=True))
        self.run()
        assert not self.engines
        assert not self.scheduler.replicas

    # -- clients

    def _arrive(self, client: Client) -> None:
        self.clients[client.id] = client
        self.waiting.append(client)
        wanted = ev.Wanted(client.id, client.model, client.deadline, client.need, client.share)
        self.send(wanted)

    def _give_up(self, client: Client) -> None:
        if not client.answered:
            client.left = True
            self.send(ev.Left(client.id))

    def _finish(self, client: Client, engine: Engine) -> None:
        if client.id in engine.running:
            engine.running.discard(client.id)
            self.send(ev.Left(client.id, tokens=10, seconds=client.takes_s))
            self.on_done(client)

    # -- what the scheduler wants done

    def send(self, event: ev.Event) -> None:
        for effect in self.scheduler.handle(event, self.now):
            self._apply(effect)
        self._check()

    def _apply(self, effect: ev.Effect) -> None:
        match effect:
            case ev.Grant(client_id, replica_id):
                self._grant(self.clients[client_id], replica_id)
            case ev.Refuse(client_id, fault):
                self._refuse(self.clients[client_id], fault)
            case ev.Prepare(load_id, model):
                assert model not in self.preparing.values(), "two loads of one model"
                self.preparing[load_id] = model
                self.at(self.now + self.prepare_s, lambda: self._prepared(load_id))
            case ev.CancelPrepare(load_id):
                del self.preparing[load_id]
            case ev.Start(replica_id, model, devices, _):
                self._start(replica_id, self.models[model], devices)
            case ev.Stop(replica_id):
                self._stop(replica_id)

    def _grant(self, client: Client, replica_id: str | None) -> None:
        assert not client.answered, "answered twice"
        assert not client.left, "granted to one who has left"
        client.granted = self.now
        if client.need is not Need.SLOT:
            return
        engine = self.engines[replica_id or ""]
        assert engine.ready, "granted before it was ready"
        assert not engine.dead, "granted a dead engine"
        assert not engine.stopping, "granted an engine that stops"
        assert engine.model.name == client.model
        engine.running.add(client.id)
        assert len(engine.running) <= engine.model.slots, "more than it has slots"
        self.at(self.now + client.takes_s, lambda: self._finish(client, engine))

    def _refuse(self, client: Client, fault: RuntimeFault) -> None:
        assert not client.answered, "answered twice"
        assert not client.left
        client.fault = fault
        if isinstance(fault, Warming):
            assert client.deadline <= self.now, "told to come back before its time was up"
            self._warmed_until[client.model] = self.now + self.limits.linger_s

    def _prepared(self, load_id: str) -> None:
        model = self.preparing.pop(load_id, None)
        if model is None:
            return
        if self.chance.random() < self.loses_network:
            self.send(ev.PrepareFailed(load_id, "no network"))
            return
        one = self.models[model]
        self.placing[model] = self.now
        self.send(ev.Prepared(load_id, (Offer("engine", one.kind, one.memory, one.slots, one.devices),)))

    def _start(self, replica_id: str, model: Model, devices: tuple[str, ...]) -> None:
        assert len(set(devices)) == model.devices
        self.engines[replica_id] = Engine(model, devices)
        for device in devices:
            assert self.devices[device][0] == model.kind
            assert self.used(device) <= self.devices[device][1], f"{device} is overcommitted"
        self.longest_placing_s = max(
            self.longest_placing_s, self.now - self.placing.pop(model.name, self.now)
        )
        self.loads.append((self.now, model.name))
        self.at(self.now + model.load_s, lambda: self._up(replica_id))

    def used(self, device: str) -> int:
        held = sum(memory for devices, memory in self.held.values() if device in devices)
        return held + sum(e.memory for e in self.engines.values() if device in e.devices)

    def _up(self, replica_id: str) -> None:
        engine = self.engines.get(replica_id)
        if engine is None or engine.stopping:
            return
        if self.chance.random() < engine.model.starts_badly:
            engine.dead = True
            self.send(ev.Failed(replica_id, "no start"))
            return
        engine.ready = True
        self.ready.append((self.now, engine.model.name))
        if self.chance.random() < engine.model.crashes:
            self.at(self.now + self.chance.uniform(0, 20), lambda: self.crash(replica_id))
        self.send(ev.Measured(replica_id, engine.memory))
        self.send(ev.Started(replica_id))

    def _stop(self, replica_id: str) -> None:
        engine = self.engines[replica_id]
        assert not engine.stopping, "stopped twice"
        assert not engine.running or engine.dead or self._closing, "stopped while it answered"
        engine.stopping = True
        engine.running.clear()
        self.at(self.now + STOP_S, lambda: self._gone(replica_id))

    def _gone(self, replica_id: str) -> None:
        engine = self.engines.pop(replica_id)
        kept = engine.memory // 2 if self.chance.random() < self.keeps_memory else 0
        if kept:
            self.held[replica_id] = (engine.devices, kept)
            self.at(self.now + 10.0, lambda: self._released(replica_id))
        self.send(ev.Gone(replica_id, kept, "still mapped" if kept else ""))

    def _released(self, replica_id: str) -> None:
        del self.held[replica_id]
        self.send(ev.Released(replica_id))

    # -- what must never be

    def _check(self) -> None:
        self.waiting = [c for c in self.waiting if not c.answered and not c.left]
        waiting = {c.model for c in self.waiting}
        late = [c.id for c in self.waiting if c.deadline < self.now]
        assert not late, f"{late} were forgotten"
        loading = [e.model.name for e in self.engines.values() if not (e.ready or e.dead or e.stopping)]
        assert len(loading) == len(set(loading)), "two loads of one model"
        for model in {*loading, *self.preparing.values()}:
            unwanted = model not in waiting and self._warmed_until.get(model, 0.0) <= self.now
            assert not unwanted, f"{model} is loaded for nobody"


@pytest.fixture
def world() -> type[World]:
    return World


@pytest.fixture
def model() -> type[Model]:
    return Model
