"""What the whole Hub costs, on its real processes: the parts that are measured, and how they are told."""

import asyncio
import io
from pathlib import Path

import pytest
from rich.console import Console
from typer.testing import CliRunner

from benchmarks.cli import app
from benchmarks.command.progress import Progress
from benchmarks.hub.measuring import HubPlan, Part, run_hub
from benchmarks.hub.memory import measure_memory
from benchmarks.reports.result import read


@pytest.fixture
def progress() -> Progress:
    return Progress(Console(file=io.StringIO()), quiet=True)


def test_the_command_shows_and_writes_every_part(tmp_path: Path) -> None:
    file = tmp_path / "hub.json"
    result = CliRunner().invoke(
        app,
        ["hub", "--quick", "--nodes", "3", "--requests", "60", "--json", str(file)],
        env={"COLUMNS": "160"},
    )
    assert result.exit_code == 0, result.output
    written = read(file)
    figures = [figure for _, figure in written.figures()]
    for figure in figures:
        assert figure.name in result.output
        assert figure.value > 0, figure.key
    assert len(figures) == 4
    level = written.details["requests"]["levels"][0]
    assert (level["via"]["completed"], level["via"]["errors"], level["spoiled_rounds"]) == (
        60,
        {},
        {"via": 0},
    )
    assert set(level["cpu_s_per_1000_requests"]["via"]) == {"engine", "hub", "node"}


async def test_memory_is_that_of_a_hub_to_which_all_nodes_have_come(
    tmp_path: Path, progress: Progress
) -> None:
    found = await measure_memory(tmp_path, 5, 0.1, progress)
    assert found.nodes == 5
    assert found.before_bytes < found.bytes < 2 * found.before_bytes


async def test_stopping_keeps_what_was_complete() -> None:
    stop = asyncio.Event()

    class StopsAtTheNodes(Progress):
        def phase(self, label: str, limit: object) -> None:
            if label.startswith("Enrolling"):
                stop.set()

    plan = HubPlan(parts=frozenset({Part.REQUESTS, Part.MEMORY}), rounds=1, concurrency=2, requests=20)
    result = await run_hub(plan, stop=stop, progress=StopsAtTheNodes(Console(), quiet=True))
    assert result.interrupted
    assert result.requests is not None
    assert (result.chunks, result.memory) == (None, None)


async def test_stopping_amid_the_rounds_keeps_the_complete_ones() -> None:
    stop = asyncio.Event()

    class StopsInTheThirdRound(Progress):
        def __init__(self) -> None:
            super().__init__(Console(), quiet=True)
            self.seen = 0

        def count(self, sample: object) -> None:
            self.seen += 1
            if self.seen == 2 * 2 + 5 * 20 + 7:  # a warm-up of two sides, two rounds and a half
                stop.set()

    plan = HubPlan(parts=frozenset({Part.REQUESTS}), rounds=1000, concurrency=2, requests=20)
    result = await run_hub(plan, stop=stop, progress=StopsInTheThirdRound())
    assert result.interrupted
    assert result.requests is not None
    assert [level.rounds for level in result.requests.levels] == [2]
