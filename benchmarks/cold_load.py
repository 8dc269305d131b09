"""From nothing to a first token: a cold model behind a Hub and a node, against the engine's bare start.

Owns the turns and their figures. Either side begins with no engine process: the bare one counts from the
start of its process, Porten's from the sending of the request that makes a node load the model.
"""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass

import psutil

from benchmarks.bare_engine import BareEngine
from benchmarks.client import Client, Sample
from benchmarks.errors import BenchmarkError
from benchmarks.load import Limit
from benchmarks.progress import Progress
from benchmarks.stack import Stack, until_gone
from benchmarks.statistics import Interval, bootstrap_median
from benchmarks.target import Target
from benchmarks.workloads import Workload
from runtime.backends.base import EngineOptions

UNLOAD_AT_ONCE = {"PORTEN_IDLE_TTL_S": "0.05"}
"""The node's settings under which each of its requests finds the model cold."""


@dataclass(frozen=True, slots=True)
class ColdLoad:
    """Seconds to the first token; the ratio is of pairs, via / direct, with its bootstrap interval."""

    direct_s: tuple[float, ...]
    via_s: tuple[float, ...]
    ratio: Interval


async def compare_cold_loads(
    bare: BareEngine,
    stack: Stack,
    via: Target,
    workload: Workload,
    *,
    rounds: int,
    progress: Progress,
) -> ColdLoad:
    """Take turns, alternating which goes first.

    Raises:
        BenchmarkError: a request failed.
    """
    progress.phase("Cold starts", Limit(requests=2 * rounds))
    direct_s: list[float] = []
    via_s: list[float] = []
    for number in range(rounds):
        turns = [
            lambda number=number: _bare(bare, workload, number, progress),
            lambda number=number: _behind(stack, via, workload, number, progress),
        ]
        for side in (0, 1) if number % 2 == 0 else (1, 0):
            (direct_s, via_s)[side].append(await turns[side]())
    ratios = [behind / alone for alone, behind in zip(direct_s, via_s, strict=True)]
    return ColdLoad(tuple(direct_s), tuple(via_s), bootstrap_median(ratios, seed=workload.seed))


async def _bare(bare: BareEngine, workload: Workload, number: int, progress: Progress) -> float:
    began = time.perf_counter()
    async with bare.running(EngineOptions()) as target, Client(target) as client:
        sample = await client.send(workload.request(number))
    progress.count(sample)
    return _first_token(sample) - began


async def _behind(stack: Stack, via: Target, workload: Workload, number: int, progress: Progress) -> float:
    await _cold(stack)
    async with Client(via) as client:
        sample = await client.send(workload.request(number, twin=1))
    progress.count(sample)
    return _first_token(sample) - sample.sent_at


async def _cold(stack: Stack) -> None:
    """Wait until the node has no engine process left."""
    engines = await asyncio.to_thread(_engines, stack)
    if await until_gone(engines):
        raise BenchmarkError("the node did not unload an idle model")


def _engines(stack: Stack) -> Sequence[psutil.Process]:
    return psutil.Process(stack.node.process.pid).children(recursive=True)


def _first_token(sample: Sample) -> float:
    if sample.error is not None or sample.first_token_at is None:
        raise BenchmarkError(f"a cold request failed: {sample.error or 'no token'} {sample.detail}")
    return sample.first_token_at
