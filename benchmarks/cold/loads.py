"""From nothing to a first token: a cold model behind a node, against the engine's bare start.

Owns the turns and their figures. Either side begins with no engine process: the bare one counts from the
start of its process, Porten's from the sending of the request that makes a node load the model. A turn of
each goes before the first that counts, so that what the disk gives is in the page cache for both.
"""

import asyncio
import time
from dataclasses import dataclass
from typing import Final

from benchmarks.command.progress import Progress
from benchmarks.errors import BenchmarkError
from benchmarks.figures.statistics import Interval, bootstrap_median
from benchmarks.generator.client import Client, Sample
from benchmarks.generator.loads import Limit
from benchmarks.generator.target import Target
from benchmarks.generator.workloads import WARMUP_INDEX, Workload
from benchmarks.stacks.bare_engine import BareEngine
from benchmarks.stacks.local_node import engines_of
from benchmarks.stacks.stack import until_gone
from runtime.backends.base import EngineOptions

UNLOAD_AT_ONCE: Final = {"PORTEN_IDLE_TTL_S": "0.05"}
"""The node's settings under which each of its requests finds the model cold."""
_DIRECT, _VIA = 0, 1


@dataclass(frozen=True, slots=True)
class ColdLoad:
    """Seconds to the first token; the ratio is of pairs, via / direct, with its bootstrap interval."""

    direct_s: tuple[float, ...]
    via_s: tuple[float, ...]
    ratio: Interval


@dataclass(frozen=True, slots=True)
class ColdTurns:
    """The two sides, and how each gives a first token from nothing.

    Attributes:
        bare: the engine by itself.
        daemon: process id of the node whose engines come and go.
        via: what stands before them.
    """

    bare: BareEngine
    daemon: int
    via: Target
    workload: Workload
    progress: Progress

    async def take(self, side: int, index: int) -> float:
        """Seconds from nothing to the first token of request number `index`."""
        return await (self._bare(index) if side == _DIRECT else self._behind(index))

    async def _bare(self, index: int) -> float:
        began = time.perf_counter()
        async with self.bare.running(EngineOptions()) as target, Client(target) as client:
            sample = await client.send(self.workload.request(index))
        self.progress.count(sample)
        return first_token(sample) - began

    async def _behind(self, index: int) -> float:
        if await until_gone(await asyncio.to_thread(engines_of, self.daemon)):
            raise BenchmarkError("the node did not unload an idle model")
        async with Client(self.via) as client:
            sample = await client.send(self.workload.request(index, twin=1))
        self.progress.count(sample)
        return first_token(sample) - sample.sent_at


async def compare_cold_loads(
    turns: ColdTurns, *, rounds: int, stop: asyncio.Event | None = None
) -> ColdLoad | None:
    """Take turns, alternating which goes first; None where it was stopped before the first pair.

    Setting `stop` ends it after the pair that is under way.

    Raises:
        BenchmarkError: a request failed.
    """
    turns.progress.phase("Cold starts", Limit(requests=2 * rounds + 2))
    pairs: list[tuple[float, float]] = []
    for side in (_DIRECT, _VIA):
        await turns.take(side, WARMUP_INDEX)
    while len(pairs) < rounds and not (stop and stop.is_set()):
        pairs.append(await _pair(turns, len(pairs)))
    if not pairs:
        return None
    direct_s, via_s = zip(*pairs, strict=True)
    ratios = [behind / alone for alone, behind in pairs]
    return ColdLoad(direct_s, via_s, bootstrap_median(ratios, seed=turns.workload.seed))


async def _pair(turns: ColdTurns, number: int) -> tuple[float, float]:
    found = [0.0, 0.0]
    for side in (_DIRECT, _VIA) if number % 2 == 0 else (_VIA, _DIRECT):
        found[side] = await turns.take(side, number)
    return found[_DIRECT], found[_VIA]


def first_token(sample: Sample) -> float:
    """When the first token came.

    Raises:
        BenchmarkError: the request failed.
    """
    if sample.error is not None or sample.first_token_at is None:
        raise BenchmarkError(f"a cold request failed: {sample.error or 'no token'} {sample.detail}")
    return sample.first_token_at
