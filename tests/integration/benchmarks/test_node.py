"""The node's benchmarks on a real daemon and real engines."""

import asyncio
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
from rich.console import Console
from typer.testing import CliRunner, Result

from benchmarks.cli import app
from benchmarks.cold.measuring import ColdPlan, Part, run_cold_load
from benchmarks.cold.swap import measure_swaps, swap_settings
from benchmarks.command.progress import Progress
from benchmarks.errors import BenchmarkError
from benchmarks.generator.workloads import Fixed, Workload
from benchmarks.node.measuring import NodePlan, run_node
from benchmarks.reports.result import read
from benchmarks.stacks.engine_choice import EngineChoice
from benchmarks.stacks.local_node import run_local_node
from benchmarks.stacks.stack import MODEL, SharedData
from models.catalog import WheelSource, load_catalog

LeftOver = Callable[[], set[psutil.Process]]


@pytest.fixture
def left_over() -> LeftOver:
    """The processes that were started since: other tests' pools keep one of their own."""
    before = set(psutil.Process().children(recursive=True))
    return lambda: set(psutil.Process().children(recursive=True)) - before


pytestmark = [pytest.mark.engine, pytest.mark.timeout(300)]  # engines on a machine that is busy with tests

ENTRY = """
[[models]]
id = "{id}"
name = "With a small cache, so that it starts fast"
sha256 = "{sha256}"
size_bytes = {size_bytes}
context_length = 512
slots = 2
[models.source]
kind = "pypi-wheel"
package = "{package}"
version = "{version}"
member = "{member}"
"""


@pytest.fixture
def catalog(tmp_path: Path) -> Path:
    """The packaged model with a short context in the packaged one's place."""
    spec = load_catalog().require(MODEL)
    assert isinstance(spec.source, WheelSource)
    source = {name: getattr(spec.source, name) for name in ("package", "version", "member")}
    file = tmp_path / "catalog.toml"
    file.write_text(ENTRY.format(id=spec.id, sha256=spec.sha256, size_bytes=spec.size_bytes, **source))
    return file


@pytest.fixture
def choice(shared_data: Path, catalog: Path) -> EngineChoice:
    return EngineChoice(SharedData(shared_data), catalog=(catalog,))


@pytest.fixture
def quiet() -> Progress:
    return Progress(Console(file=io.StringIO()), quiet=True)


def invoke(*arguments: str) -> Result:
    return CliRunner().invoke(app, list(arguments), env={"COLUMNS": "160"})


async def test_a_daemon_against_its_engine_and_then_idle(
    choice: EngineChoice, quiet: Progress, left_over: LeftOver
) -> None:
    plan = NodePlan(choice, threads=(1,), streams=(1, 3), rounds=1, output_tokens=6, pairs=3, idle_s=1.0)
    result = await run_node(plan, stop=asyncio.Event(), progress=quiet)
    assert not result.interrupted
    levels = result.relays[1].levels
    assert [level.load.concurrency for level in levels] == [1, 3]
    for level in levels:
        tokens = 6 * plan.requests(level.load.concurrency)
        assert (level.rounds, level.via.spoiled_rounds) == (1, 0)
        assert [side.metrics.output_tokens for side in level.sides] == [tokens, tokens]
        # The engine takes tens of milliseconds a token: with it, this would be many times as much.
        assert 0 <= level.via.cpu["daemon"].per_token_s.median < 0.01
    assert result.one_by_one is not None
    (pairs,) = result.one_by_one.levels
    assert [side.metrics.completed for side in pairs.sides] == [pairs.rounds, pairs.rounds] == [3, 3]
    assert result.idle is not None
    assert 30e6 < result.idle.resident_bytes < 300e6  # without the engine, which is larger
    assert 0 <= result.idle.cpu < 0.5
    assert left_over() == set()


async def test_stopping_keeps_the_rounds_that_were_complete(
    choice: EngineChoice, left_over: LeftOver
) -> None:
    stop = asyncio.Event()

    class StopsAtThreeStreams(Progress):
        def phase(self, label: str, limit: object) -> None:
            if label == "Comparing, 3 streams":
                stop.set()

    plan = NodePlan(choice, threads=(1,), streams=(1, 3), rounds=1, output_tokens=2, pairs=1, idle_s=60.0)
    result = await run_node(plan, stop=stop, progress=StopsAtThreeStreams(Console(), quiet=True))
    assert result.interrupted
    assert [level.load.concurrency for level in result.relays[1].levels] == [1]
    assert (result.one_by_one, result.idle) == (None, None)
    assert left_over() == set()


def test_the_node_command_shows_and_writes(shared_data: Path, tmp_path: Path) -> None:
    file = tmp_path / "node.json"
    result = invoke(
        "node", "--data-dir", str(shared_data), "--threads", "1", "--streams", "1", "--rounds", "1",
        "--pairs", "2", "--idle", "1", "--quiet", "--json", str(file),
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    for text in ("tokens/s, 1 stream", "TTFT p50", "CPU a token", "memory (RSS)", ">= 0.9", "<= 120"):
        assert text in result.output
    written = read(file)
    ratio, added, cpu = written.groups[0].figures
    assert (ratio.unit, added.unit, cpu.unit) == ("x", "ms", "ms")
    assert ratio.bound.verdict == added.bound.verdict == "unclear"  # of one round
    assert written.details["relay"]["1"]["levels"][0]["via"]["failed"] == 0
    assert {figure.key: figure.value for _, figure in written.figures()}["idle/rss_mb"] > 30


async def test_cold_starts_and_swaps(choice: EngineChoice, quiet: Progress, left_over: LeftOver) -> None:
    result = await run_cold_load(ColdPlan(choice, rounds=1, swaps=2), stop=asyncio.Event(), progress=quiet)
    assert not result.interrupted
    assert result.cold is not None
    assert len(result.cold.direct_s) == len(result.cold.via_s) == 1
    assert result.cold.ratio.median == pytest.approx(result.cold.via_s[0] / result.cold.direct_s[0])
    assert len(result.swaps_s) == 2
    assert min(*result.swaps_s, *result.cold.via_s, *result.cold.direct_s) > 0.05  # an engine came up
    assert left_over() == set()


async def test_a_budget_for_both_models_is_no_swap(
    choice: EngineChoice, quiet: Progress, tmp_path: Path
) -> None:
    settings: dict[str, Any] = swap_settings(choice.bare(tmp_path), tmp_path)
    del settings["PORTEN_RAM_BUDGET_MB"]
    async with run_local_node(tmp_path / "node", choice.data, **settings) as node:
        with pytest.raises(BenchmarkError, match="kept both models"):
            await measure_swaps(
                node, Workload(Fixed(4), Fixed(2)), count=1, stop=asyncio.Event(), progress=quiet
            )


async def test_stopping_keeps_the_swaps_that_were_complete(choice: EngineChoice) -> None:
    stop = asyncio.Event()

    class StopsAfterTheFirst(Progress):
        seen = 0

        def count(self, sample: object) -> None:
            self.seen += 1
            if self.seen == 3:  # two bring the models, the third is a swap
                stop.set()

    plan = ColdPlan(choice, parts=frozenset({Part.SWAP}), swaps=50)
    result = await run_cold_load(plan, stop=stop, progress=StopsAfterTheFirst(Console(), quiet=True))
    assert result.interrupted
    assert (result.cold, len(result.swaps_s)) == (None, 1)


def test_the_cold_load_command_shows_and_writes(shared_data: Path, tmp_path: Path, catalog: Path) -> None:
    file = tmp_path / "cold.json"
    result = invoke(
        "cold-load", "--data-dir", str(shared_data), "--only", "swap", "--swaps", "1", "--quiet",
        "--catalog", str(catalog), "--json", str(file),
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    assert "swap, 1 times" in result.output
    written = read(file)
    ((_, figure),) = written.figures()
    assert (figure.key, len(figure.values)) == ("swap/s", 1)
    assert (figure.bound.value, figure.bound.at_least) == (2.0, False)


@pytest.mark.parametrize("command", ["node", "cold-load"])
@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--backend", "crystal-ball"), "no backend 'crystal-ball'"),
        (("--model", "no-such-model"), "no-such-model"),
        (("--catalog", "/no/such/catalog.toml"), "cannot be read"),
    ],
)
def test_what_cannot_be_measured_is_one_clear_line(
    command: str, arguments: tuple[str, ...], said: str, shared_data: Path
) -> None:
    result = invoke(command, "--quick", "--data-dir", str(shared_data), "--quiet", *arguments)
    assert result.exit_code == 1
    assert said in result.stderr
    assert "Traceback" not in result.output


@pytest.mark.parametrize("command", ["node", "cold-load"])
def test_an_engine_that_is_not_here_names_the_remedy(command: str, tmp_path: Path) -> None:
    result = invoke(command, "--quick", "--data-dir", str(tmp_path), "--quiet")
    assert result.exit_code == 1
    assert "porten engines install" in result.stderr
