"""Two models of which a node's memory holds one: how soon the other answers.

Owns the settings that make it so, and the requests. The models are two entries of one file, so that each is
as large as the other, and in the page cache since the other's load. Must not know how results are shown.
"""

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import msgspec
import psutil

from benchmarks.cold.loads import first_token
from benchmarks.command.progress import Progress
from benchmarks.errors import BenchmarkError
from benchmarks.generator.client import Client
from benchmarks.generator.loads import Limit
from benchmarks.generator.workloads import WARMUP_INDEX, Workload
from benchmarks.stacks.bare_engine import BareEngine
from benchmarks.stacks.local_node import LocalNode
from runtime.backends.base import EngineOptions

MODELS: Final = ("swap-a", "swap-b")
_ROOM: Final = 1.5  # for one of them and not for two
_MIB: Final = 1024 * 1024
_ENTRY: Final = """
[[models]]
id = {id}
name = {id}
format = {format}
context_length = {context}
slots = {slots}
capabilities = ["chat", "completions"]
[models.source]
kind = "file"
path = {path}
"""


def swap_settings(bare: BareEngine, directory: Path) -> dict[str, str]:
    """The node's settings under which it knows the two models, and has room for one; writes their catalog.

    They get a store of their own: the one that is shared learns of no other models.
    """
    catalog = directory / "swap.toml"
    catalog.write_text("".join(_entry(bare, model) for model in MODELS), encoding="utf-8")
    budget = bare.plan(EngineOptions()).memory.total * _ROOM
    return {
        "PORTEN_ENGINES": bare.backend.name,
        "PORTEN_CATALOG": str(catalog),
        "PORTEN_MODELS": ",".join(MODELS),
        "PORTEN_MODELS_DIR": str(directory / "swap-models"),
        "PORTEN_RAM_BUDGET_MB": str(int(budget / _MIB)),
        "PORTEN_VRAM_BUDGET_MB": str(int(budget / _MIB)),
    }


def _entry(bare: BareEngine, model: str) -> str:
    texts = {"id": model, "format": bare.spec.format, "path": str(bare.stored.path)}
    quoted = {name: msgspec.json.encode(text).decode() for name, text in texts.items()}
    return _ENTRY.format(**quoted, context=bare.spec.context_length, slots=bare.spec.slots)


async def measure_swaps(
    node: LocalNode, workload: Workload, *, count: int, stop: asyncio.Event, progress: Progress
) -> tuple[float, ...]:
    """Ask for the model that is not loaded, in turns; seconds from each request to its first token.

    Setting `stop` ends it after the swap that is under way.

    Raises:
        BenchmarkError: a request failed, or both models were loaded at once.
    """
    progress.phase("Swaps", Limit(requests=count + len(MODELS)))
    for number, model in enumerate(MODELS):  # brings it to the store, and its file into the page cache
        await _ask(node, model, workload, WARMUP_INDEX + number, progress)
    found: list[float] = []
    while len(found) < count and not stop.is_set():
        before = await node.engines()
        found.append(await _ask(node, MODELS[len(found) % 2], workload, len(found), progress))
        _see_that_they_went(before)
    return tuple(found)


async def _ask(node: LocalNode, model: str, workload: Workload, index: int, progress: Progress) -> float:
    async with Client(node.target(model)) as client:
        sample = await client.send(workload.request(index))
    progress.count(sample)
    return first_token(sample) - sample.sent_at


def _see_that_they_went(engines: Sequence[psutil.Process]) -> None:
    if not engines or any(engine.is_running() for engine in engines):
        raise BenchmarkError("the node kept both models: nothing was swapped")
