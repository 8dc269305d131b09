"""The same load on several ways to the same engine, in turns.

One round is one run on each side, back to back, so that a machine that speeds up or slows down does so for
all of them; who goes first rotates from round to round, so that drift within rounds cancels. Owns the order
of the runs and what each took of the processors. Must not know what the sides are, nor what is made of it.
"""

import asyncio
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from typing import Final

from benchmarks.command.progress import Progress
from benchmarks.generator.client import Client
from benchmarks.generator.driving import RealTime, Run, drive
from benchmarks.generator.loads import ClosedLoop, Limit
from benchmarks.generator.target import Target
from benchmarks.generator.workloads import WARMUP_INDEX, Request, Workload
from benchmarks.machine.cpu import WatchedTree, consumed, read_cpu
from benchmarks.serving.measuring import probe

_WARMUP_TOKENS: Final = 20


@dataclass(frozen=True, slots=True)
class Side:
    """One way to the engine.

    Attributes:
        name: what programs and people call it, such as ``hub``.
        target: where it answers; whether it streams is the load's matter.
        trees: the processes whose CPU time is told of its runs.
    """

    name: str
    target: Target
    trees: tuple[WatchedTree, ...] = ()


@dataclass(frozen=True, slots=True)
class Load:
    """What is run on every side in each round: so many requests, so many of them at a time.

    Attributes:
        key: what programs call it, such as ``c8``; figures' keys begin with it.
        title: what people call it.
        requests: in each run.
        stream: whether answers are asked for as streams.
    """

    key: str
    title: str
    concurrency: int
    requests: int
    workload: Workload
    stream: bool = True


@dataclass(frozen=True, slots=True)
class Turn:
    """One run on one side. CPU is in seconds: of each of its trees, and of this process."""

    run: Run
    cpu_s: dict[str, float]
    generator_cpu_s: float

    @property
    def spoiled(self) -> bool:
        """A run with failures did other work than its twins: it cannot be compared."""
        return any(sample.error is not None for sample in self.run.samples)


Round = tuple[Turn, ...]
"""One turn of each side, in the order in which the sides were given."""


def order(number: int, sides: int) -> list[int]:
    """Who runs when in round ``number``: the order rotates, so that each takes each place equally often."""
    return [(number + place) % sides for place in range(sides)]


class Turns:
    """Sides that take turns. No two runs ask for the same words, whichever side or load they are of."""

    def __init__(
        self, sides: Sequence[Side], *, rounds: int, stop: asyncio.Event, progress: Progress
    ) -> None:
        self._sides = sides
        self._rounds = rounds
        self._stop = stop
        self._progress = progress
        self._next_index = 0

    async def probe(self, load: Load) -> None:
        """Ask each side for one token.

        Raises:
            EndpointUnusable: one of them does not answer.
            ProcessMissing: a process to be watched is not there.
        """
        self._progress.phase("Probing", Limit(requests=len(self._sides)))
        for side in self._sides:
            read_cpu(side.trees)
            target = _asked(side, load)
            async with Client(target) as client:
                await probe(client, target, load.workload, stop=self._stop)

    async def take(self, load: Load) -> list[Round]:
        """The complete rounds of one load."""
        async with AsyncExitStack() as cleanup:
            clients = [await cleanup.enter_async_context(Client(_asked(side, load))) for side in self._sides]
            await self._warm_up(clients, load)
            limit = Limit(requests=len(clients) * load.requests * self._rounds)
            self._progress.phase(f"Comparing, {load.title}", limit)
            rounds: list[Round] = []
            for number in range(self._rounds):
                turns = await self._round(clients, load, number)
                if self._stop.is_set():
                    break
                rounds.append(turns)
            return rounds

    async def _warm_up(self, clients: Sequence[Client], load: Load) -> None:
        self._progress.phase(f"Warming up, {load.title}", Limit(requests=len(clients) * load.concurrency))
        for twin, client in enumerate(clients):

            def asked(number: int, twin: int = twin) -> Request:
                request = load.workload.request(WARMUP_INDEX + self._next_index + number, twin=twin)
                return replace(request, output_tokens=min(request.output_tokens, _WARMUP_TOKENS))

            await drive(
                client,
                asked,
                ClosedLoop(load.concurrency),
                Limit(requests=load.concurrency),
                timeline=RealTime(),
                stop=self._stop,
                on_sample=self._progress.count,
            )

    async def _round(self, clients: Sequence[Client], load: Load, number: int) -> Round:
        turns: dict[int, Turn] = {}
        for which in order(number, len(clients)):
            turns[which] = await self._turn(clients[which], load, which)
        self._next_index += load.requests
        return tuple(turns[which] for which in range(len(clients)))

    async def _turn(self, client: Client, load: Load, which: int) -> Turn:
        trees, index = self._sides[which].trees, self._next_index
        cpu, own = read_cpu(trees), time.process_time()
        run = await drive(
            client,
            lambda number: load.workload.request(index + number, twin=which),
            ClosedLoop(load.concurrency),
            Limit(requests=load.requests),
            timeline=RealTime(),
            stop=self._stop,
            on_sample=self._progress.count,
        )
        own = time.process_time() - own
        return Turn(run, consumed(cpu, read_cpu(trees)), own)


def _asked(side: Side, load: Load) -> Target:
    return replace(side.target, stream=load.stream)
