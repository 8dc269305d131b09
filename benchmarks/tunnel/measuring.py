"""The tunnel's benchmark: which parts are run with which settings, and one result for all of it.

Owns the plan, the order of its parts and where each part's processes keep their files. How a part is measured
is the matter of `tunnel_relay` and `tunnel_bare`. Must not know the command line or how results are shown.
"""

import asyncio
import tempfile
from collections.abc import Collection
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Self

from benchmarks.command.progress import Progress
from benchmarks.errors import BenchmarkError
from benchmarks.generator.loads import Limit
from benchmarks.machine.processes import ProcessFailed
from benchmarks.stopping import IN_GOOD_ORDER_S, unless
from benchmarks.tunnel.bare import BareTunnels, IdleSessions, Storm
from benchmarks.tunnel.relay import RelayLevel, RelayRounds, StreamLoad
from benchmarks.tunnel.server import Carried, Carry
from benchmarks.tunnel.stack import run_relay_stack
from tunnel.gate import DEFAULT_LIMITS


class Part(StrEnum):
    """What can be measured by itself."""

    RELAY = "relay"
    LATENCY = "latency"
    CHUNKS = "chunks"
    BODY = "body"
    SESSIONS = "sessions"
    STORM = "storm"


@dataclass(frozen=True, slots=True)
class TunnelPlan:
    """Everything that decides a measurement.

    Attributes:
        parts: which are run.
        rounds: pairs of runs at each load of `relay` and `latency`.
        seed: decides the prompts.
        relay: loads for chunks/s and CPU time.
        latency: loads for what is added to the time to the first chunk.
        carry: chunks and bodies over one tunnel.
        idle: numbers of sessions whose memory is read.
        storm: nodes that come back.
        rates: handshakes a second that are let in meanwhile, one storm at each.
    """

    parts: frozenset[Part] = frozenset(Part)
    rounds: int = 5
    seed: int = 0
    relay: tuple[StreamLoad, ...] = (
        StreamLoad(256, 5, chunks=400),
        StreamLoad(64, 20, chunks=250),
        StreamLoad(16, 20, chunks=250),
    )
    latency: tuple[StreamLoad, ...] = (
        StreamLoad(1, 1, chunks=1, answers=300),  # one after the other: the way itself, nothing gone cold
        StreamLoad(1, 20, chunks=8, answers=30),
        StreamLoad(16, 20, chunks=8, answers=8),
    )
    carry: Carry = field(default_factory=lambda: Carry(bodies=30))
    idle: tuple[int, ...] = (1000, 5000)
    storm: int = 5000
    rates: tuple[float, ...] = (DEFAULT_LIMITS.handshakes_per_s, 4 * DEFAULT_LIMITS.handshakes_per_s)

    @classmethod
    def quick(cls, parts: frozenset[Part], seed: int) -> Self:
        """Small enough for a minute: shows that it works, no more."""
        return cls(
            parts=parts,
            rounds=1,
            seed=seed,
            relay=(StreamLoad(64, 5, chunks=100), StreamLoad(16, 20, chunks=40)),
            latency=(StreamLoad(1, 20, chunks=4, answers=8), StreamLoad(16, 20, chunks=4, answers=2)),
            carry=Carry(seconds=0.5, bodies=5),
            idle=(100, 300),
            storm=120,
            rates=(4 * DEFAULT_LIMITS.handshakes_per_s,),
        )


@dataclass(slots=True)
class TunnelResult:
    """What came of each part; what was not run, or not come to, is empty.

    Attributes:
        bodies: whether bodies were carried and not only chunks.
        interrupted: it was stopped before its end.
    """

    plan: TunnelPlan
    relay: list[RelayLevel] = field(default_factory=list)
    latency: list[RelayLevel] = field(default_factory=list)
    carried: Carried | None = None
    idle: list[IdleSessions] = field(default_factory=list)
    storms: list[Storm] = field(default_factory=list)
    interrupted: bool = False


async def run_tunnel(plan: TunnelPlan, *, stop: asyncio.Event, progress: Progress) -> TunnelResult:
    """Measure as planned. Setting ``stop`` ends it early and keeps the complete rounds.

    Raises:
        BenchmarkError: something cannot be measured.
    """
    result = TunnelResult(plan)
    with tempfile.TemporaryDirectory(prefix="porten-bench-") as directory:
        try:
            work = _measure(result, Path(directory), stop, progress)
            ended = await unless(stop, work, grace_s=IN_GOOD_ORDER_S)
        except ProcessFailed as failed:
            raise BenchmarkError(str(failed)) from failed
    result.interrupted = not ended
    return result


async def _measure(result: TunnelResult, directory: Path, stop: asyncio.Event, progress: Progress) -> None:
    plan = result.plan
    if plan.parts & {Part.RELAY, Part.LATENCY}:
        await _relay(result, directory, stop, progress)
    if stop.is_set():
        return
    bare = BareTunnels(directory, progress)
    if plan.parts & {Part.CHUNKS, Part.BODY}:
        result.carried = await bare.carry(_carry(plan.carry, plan.parts))
    if Part.SESSIONS in plan.parts:
        result.idle = await bare.idle(plan.idle)
    if Part.STORM in plan.parts:
        result.storms = await bare.storms(plan.storm, plan.rates)


def _carry(task: Carry, parts: Collection[Part]) -> Carry:
    """Leave out what was not asked for."""
    return Carry(
        chunk_bytes=task.chunk_bytes,
        streams=task.streams,
        seconds=task.seconds if Part.CHUNKS in parts else 0.0,
        bodies=task.bodies if Part.BODY in parts else 0,
    )


async def _relay(result: TunnelResult, directory: Path, stop: asyncio.Event, progress: Progress) -> None:
    plan = result.plan
    wanted = [
        (found, load)
        for part, loads, found in (
            (Part.RELAY, plan.relay, result.relay),
            (Part.LATENCY, plan.latency, result.latency),
        )
        if part in plan.parts
        for load in loads
    ]
    intervals = sorted({load.interval_ms for _, load in wanted})
    progress.phase("Starting Hub, node and engine", Limit(requests=1))
    async with run_relay_stack(directory, intervals) as stack:
        rounds = RelayRounds(stack, rounds=plan.rounds, seed=plan.seed, stop=stop, progress=progress)
        for found, load in wanted:
            if not stop.is_set() and (level := await rounds.measure(load)) is not None:
                found.append(level)
