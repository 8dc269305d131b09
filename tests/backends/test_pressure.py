"""The supervisor under more demand than there is memory, on the real engine: crowds, alternating models."""

import asyncio
import contextlib
import itertools
import json
import logging
import os
import random
import time
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import psutil
import pytest

from models.catalog import Catalog
from models.store import ModelStore
from runtime.backends.base import EngineOptions
from runtime.devices import CpuDevice
from runtime.engine_http import EngineClient, json_headers
from runtime.errors import Overloaded, Warming
from runtime.process import OWNER_MARK, marked, owner_of
from runtime.supervisor import Lease, Supervisor, SupervisorSettings
from runtime.turns import TurnRule

pytestmark = pytest.mark.engine
logger = logging.getLogger(__name__)

SOAK_S = float(os.environ.get("PORTEN_SOAK_S", "600"))
OPTIONS = EngineOptions(context_length=256, slots=8)
CLIENTS = 50
ORGANISATIONS = 5
BUDGET_S = 120.0


@dataclass
class Node:
    """A running supervisor over two models, of which only one fits in memory."""

    supervisor: Supervisor
    state_dir: Path
    changed: asyncio.Event

    async def until(self, condition: Callable[[], bool]) -> None:
        """Look at every change, and now and then: a process is born without the supervisor being told."""
        while not condition():
            self.changed.clear()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self.changed.wait(), 0.02)

    def engines(self) -> set[psutil.Process]:
        return marked(OWNER_MARK, owner_of(self.state_dir))

    def lease(self, model: str, share: str = "") -> contextlib.AbstractAsyncContextManager[Lease]:
        return self.supervisor.lease(model, budget_s=BUDGET_S, share=share)

    def is_empty(self) -> bool:
        """Whether no engine runs and no memory is reserved or held for one."""
        seen = self.supervisor.snapshot()
        return not seen.replicas and not any(d.memory_reserved or d.memory_held for d in seen.devices)


@pytest.fixture
async def node(tmp_path: Path, shared_data: Path, llama_cpp_case: Any) -> AsyncIterator[Node]:
    changed = asyncio.Event()
    backend, spec = llama_cpp_case.backend, llama_cpp_case.spec
    plan = backend.plan(spec, llama_cpp_case.stored, OPTIONS)
    supervisor = Supervisor(
        catalog=Catalog([msgspec.structs.replace(spec, id=name, slots=8) for name in ("one", "two")]),
        store=ModelStore(shared_data / "models"),
        backends=[backend],
        devices=[CpuDevice()],
        settings=SupervisorSettings(
            state_dir=tmp_path / "state", ram_budget_bytes=plan.memory.total * 3 // 2, engine=OPTIONS
        ),
        on_change=changed.set,
    )
    running = asyncio.create_task(supervisor.run())
    await supervisor.looked_around.wait()
    try:
        yield (one := Node(supervisor, tmp_path / "state", changed))
    finally:
        await supervisor.stop()
        await running
        assert one.engines() == set()


async def answer(lease: Lease, tokens: int = 4) -> None:
    """Have the leased engine answer, to its regular end, over the connections that the node itself uses."""
    body = {
        "model": "any",
        "messages": [{"role": "user", "content": "Name a colour."}],
        "max_tokens": tokens,
        "ignore_eos": True,
        "stream": True,
    }
    began = time.monotonic()
    client = EngineClient(lease.endpoint.host, lease.endpoint.port)
    path = lease.endpoint.base_path + "/v1/chat/completions"
    headers = json_headers(lease.endpoint.headers)
    response = await client.request("POST", path, headers, json.dumps(body).encode())
    try:
        assert response.status == 200
        said = await response.read_all(1_000_000)
    finally:
        response.close()
        client.close()
    data = [line for line in said.decode().splitlines() if line.startswith("data: ")]
    assert data[-1] == "data: [DONE]", "an answer was cut"
    reasons = [choice["finish_reason"] for line in data[:-1] for choice in json.loads(line[6:])["choices"]]
    assert reasons[-1] == "length"
    lease.report(tokens, time.monotonic() - began)


async def test_a_hundred_clients_at_one_instant_are_one_load(node: Node) -> None:
    async def ask() -> str:
        async with node.lease("one") as lease:
            await answer(lease)
            return lease.replica_id

    replicas = await asyncio.gather(*(ask() for _ in range(100)))
    assert len(replicas) == 100
    assert len(set(replicas)) == 1
    assert len(node.supervisor.snapshot().replicas) == 1


async def test_a_hundred_clients_that_leave_take_the_load_with_them(node: Node) -> None:
    granted: list[str] = []

    async def ask() -> None:
        async with node.lease("one") as lease:
            granted.append(lease.replica_id)

    crowd = [asyncio.create_task(ask()) for _ in range(100)]
    await node.until(lambda: bool(node.engines()))
    for client in crowd:
        client.cancel()
    ends = await asyncio.gather(*crowd, return_exceptions=True)
    assert all(isinstance(end, asyncio.CancelledError) for end in ends)
    await node.until(node.is_empty)
    assert not granted, "they left while it loaded"
    assert node.engines() == set()
    async with node.lease("one") as lease:
        await answer(lease)


@dataclass
class Soak:
    """What fifty clients saw who ask for one model, then for the other."""

    node: Node
    until: float
    asked: list[tuple[float, str]] = field(default_factory=list)
    taken: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    waits: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    answers: list[float] = field(default_factory=list)
    last_seen: dict[str, float] = field(default_factory=dict)
    first_seen: dict[str, float] = field(default_factory=dict)
    faults: Counter[str] = field(default_factory=Counter)

    async def client(self, number: int) -> None:
        chance = random.Random(number)
        share = f"organisation-{number % ORGANISATIONS}"
        turn = number
        while time.monotonic() < self.until:
            try:
                await self.ask("one" if turn % 2 else "two", share, chance.randint(2, 12))
            except (Overloaded, Warming) as fault:
                self.faults[type(fault).__name__] += 1
            turn += 1
            await asyncio.sleep(chance.expovariate(1.0))

    async def ask(self, model: str, share: str, tokens: int) -> None:
        began = time.monotonic()
        async with self.node.lease(model, share) as lease:
            got = time.monotonic()
            self.asked.append((began, model))
            self.taken[model].append(got)
            self.waits[share].append(got - began)
            self.first_seen.setdefault(lease.replica_id, got)
            await answer(lease, tokens)
        ended = time.monotonic()
        self.answers.append(ended - got)
        self.last_seen[lease.replica_id] = ended

    def longest_for_a_model(self) -> float:
        """The longest that anybody waited until their model took a request, theirs or an earlier one's."""
        return max(min(at for at in self.taken[model] if at >= began) - began for began, model in self.asked)

    def longest_change(self) -> float:
        """From the last answer of a replica to the first request that the next took."""
        order = sorted(self.first_seen, key=lambda replica: self.first_seen[replica])
        pairs = itertools.pairwise(order)
        return max(self.first_seen[new] - self.last_seen[old] for old, new in pairs)


@pytest.mark.soak
@pytest.mark.timeout(SOAK_S + 300)
async def test_two_models_that_do_not_fit_together_alternate(node: Node) -> None:
    soak = Soak(node, until=time.monotonic() + SOAK_S)
    async with asyncio.TaskGroup() as clients:
        for number in range(CLIENTS):
            clients.create_task(soak.client(number))
    longest = max(wait for waits in soak.waits.values() for wait in waits)
    means = {share: sum(waits) / len(waits) for share, waits in sorted(soak.waits.items())}
    for_model, change_s, answer_s = soak.longest_for_a_model(), soak.longest_change(), max(soak.answers)
    logger.info(
        "%d requests, faults %s, %d loads; longest wait %.1f s, for a model %.1f s; longest answer %.1f s, "
        "change %.1f s; mean wait of each organisation %s",
        len(soak.asked),
        dict(soak.faults),
        len(soak.first_seen),
        longest,
        for_model,
        answer_s,
        change_s,
        [round(mean, 1) for mean in means.values()],
    )
    assert len(soak.first_seen) > SOAK_S / (2 * (TurnRule().turn_s + answer_s + change_s)), "they took turns"
    assert for_model <= TurnRule().turn_s + 2 * (answer_s + change_s)
    assert max(means.values()) <= 1.5 * min(means.values()), "no organisation waits longer than others"
