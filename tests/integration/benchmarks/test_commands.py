"""The two commands from their arguments to their output, against a fake engine."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from benchmarks.cli import app
from benchmarks.command.terminal import REFUSED
from benchmarks.reports.result import read
from tunnel.version import __version__

SERVING = ("serving", "--model", "m", "--prompt-tokens", "4", "--output-tokens", "3")
KEY = "sk-porten-very-secret"


def invoke(*arguments: str, key: str | None = None) -> Result:
    return CliRunner().invoke(app, list(arguments), env={"PORTEN_API_KEY": key, "COLUMNS": "200"})


def metrics_in(file: Path) -> Any:
    return read(file).details["metrics"]


def test_a_measurement_is_shown_and_written(engine_in_thread: Callable[..., Any], tmp_path: Path) -> None:
    server, file = engine_in_thread(), tmp_path / "result.json"
    result = invoke(
        *SERVING, "--base-url", server.url, "--concurrency", "2", "--requests", "6", "--warmup", "2",
        "--seed", "5", "--json", str(file), key=KEY,
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    for text in ("TTFT", "ITL", "TPOT", "E2EL", "p99", "output tokens/s", "complete requests"):
        assert text in result.output
    written = read(file)
    assert written.settings["load"] == {"kind": "closed", "concurrency": 2}
    assert written.settings["workload"]["seed"] == 5
    assert metrics_in(file)["output_tokens"] == 18
    assert metrics_in(file)["output_tokens_counted_by"] == "usage"
    figures = {figure.key: figure.value for _, figure in written.figures()}
    assert figures["completed"] == 6
    for latency in ("ttft", "itl", "tpot", "e2el"):
        seen = metrics_in(file)[f"{latency}_ms"]
        assert 0 <= seen["minimum"] <= figures[f"{latency}_p50_ms"] == seen["p50"] <= seen["p99"]
    assert {remark.code for remark in written.remarks} >= {"percentiles_left_out", "steady_unknown"}
    assert not written.refusals
    assert written.made.environment["cpu_count"] >= 1
    assert KEY not in file.read_text() + result.output
    assert len(server.requests) == 1 + 2 + 6  # probe, warm-up, measured
    assert all(f"Bearer {KEY}" in engine.head for engine in server.requests)


def test_json_on_standard_output_is_nothing_but_json(engine_in_thread: Callable[..., Any]) -> None:
    result = invoke(*SERVING, "--base-url", engine_in_thread().url, "--requests", "2", "--json", "-")
    assert json.loads(result.stdout)["details"]["metrics"]["completed"] == 2
    assert "TTFT" in result.stderr


def test_an_open_loop_and_replies_in_one_piece(engine_in_thread: Callable[..., Any], tmp_path: Path) -> None:
    async def in_one_piece(engine: Any) -> None:
        usage = {"prompt_tokens": 4, "completion_tokens": engine.body["max_tokens"]}
        engine.whole("200 OK", {"choices": [{"message": {"content": "hi"}}], "usage": usage})

    file = tmp_path / "result.json"
    result = invoke(
        *SERVING, "--base-url", engine_in_thread(in_one_piece).url, "--no-stream", "--rate", "200",
        "--requests", "5", "--json", str(file), "--quiet",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    assert metrics_in(file)["ttft_ms"] is None
    assert metrics_in(file)["e2el_ms"]["count"] == 5
    assert read(file).settings["load"]["arrivals"] == "poisson"


@pytest.mark.parametrize(
    ("status", "code", "advice"),
    [
        ("401 Unauthorized", "invalid_api_key", "PORTEN_API_KEY"),
        ("404 Not Found", "model_not_found", "--model"),
        ("400 Bad Request", "unsupported_parameter", "--no-ignore-eos"),
        ("503 Service Unavailable", "no_available_node", "status 503"),
    ],
)
def test_a_refusal_is_one_clear_line(
    engine_in_thread: Callable[..., Any], status: str, code: str, advice: str
) -> None:
    async def refuse(engine: Any) -> None:
        engine.whole(status, {"error": {"message": "it says why", "code": code}})

    result = invoke(*SERVING, "--base-url", engine_in_thread(refuse).url, "--quiet", key=KEY)
    assert result.exit_code == 1
    assert result.stdout == ""
    assert len(result.stderr.splitlines()) == 1
    assert "it says why" in result.stderr
    assert advice in result.stderr
    assert KEY not in result.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ("--concurrency", "1", "--rate", "1"),
        ("--prompt-tokens", "lots"),
        ("--warmup", "soon"),
        ("--base-url", "localhost:80"),
        ("--endpoint", "embeddings"),
        ("--requests", "0"),
        ("--slo", "latency=1s"),
        ("--max-errors", "lots"),
        ("--percentile", "100"),
        ("--api-key-file", "/no/such/file"),
    ],
)
def test_nonsense_is_a_usage_error(arguments: tuple[str, ...]) -> None:
    result = invoke(*SERVING, "--base-url", "http://localhost:1", *arguments)
    assert result.exit_code == 2
    assert "Traceback" not in result.output


def test_failures_during_a_run_are_counted_by_kind(
    engine_in_thread: Callable[..., Any], obedient_answer: Any, tmp_path: Path
) -> None:
    async def every_second_fails(engine: Any) -> None:
        if len(server.requests) % 2:
            await obedient_answer(engine)
        else:
            engine.whole("503 Service Unavailable", {"error": {"message": "full", "code": "overloaded"}})

    server, file = engine_in_thread(every_second_fails), tmp_path / "result.json"
    result = invoke(
        *SERVING, "--base-url", server.url, "--requests", "6", "--max-errors", "50%", "--json", str(file)
    )
    assert result.exit_code == 0
    assert "3 x http_503:overloaded" in result.output
    assert metrics_in(file)["errors"] == {"http_503:overloaded": 3}


def test_an_endpoint_against_another(engine_in_thread: Callable[..., Any], tmp_path: Path) -> None:
    direct, via, file = engine_in_thread(), engine_in_thread(), tmp_path / "result.json"
    result = invoke(
        "overhead", "--direct", direct.url, "--via", via.url, "--model", "m", "--direct-model", "raw",
        "--concurrency", "1,2", "--rounds", "3", "--requests", "2", "--prompt-tokens", "4",
        "--output-tokens", "3", "--cpu-pid", f"self={os.getpid()}", "--json", str(file), key=KEY,
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    written = read(file)
    figures = {figure.key: figure for _, figure in written.figures()}
    levels = written.details["levels"]
    assert [level["concurrency"] for level in levels] == [1, 2]
    for level in levels:
        ratio = figures[f"c{level['concurrency']}/throughput_ratio"]
        assert len(ratio.values) == 3
        assert ratio.low <= ratio.value <= ratio.high
        assert level["via"]["output_tokens"] == level["direct"]["output_tokens"] == 18
        assert figures[f"c{level['concurrency']}/self_cpu_s_per_100k_chunks"].value >= 0
    assert {engine.body["model"] for engine in direct.requests} == {"raw"}
    assert not any("Authorization" in engine.head for engine in direct.requests)
    assert all(f"Bearer {KEY}" in engine.head for engine in via.requests)
    prompts = [engine.body["messages"][0]["content"] for engine in direct.requests + via.requests]
    assert len(set(prompts)) == len(prompts) - 1  # only the probe is the same on both
    assert KEY not in file.read_text() + result.output


def test_what_serving_writes_is_what_capacity_reads(
    engine_in_thread: Callable[..., Any], tmp_path: Path
) -> None:
    url = engine_in_thread().url
    files = []
    for load in (("--concurrency", "1"), ("--concurrency", "2"), ("--concurrency", "4"), ("--rate", "50")):
        files.append(str(tmp_path / f"{'-'.join(load)}.json"))
        asked = [*SERVING, "--base-url", url, *load, "--requests", "40", "--quiet", "--json", files[-1]]
        measured = invoke(*asked)
        assert measured.exit_code in {0, REFUSED}, measured.output  # a busy machine may send late
    file = tmp_path / "capacity.json"
    told = invoke("capacity", *files, "--rate", "100", "--slo", "ttft=5s", "--json", str(file))
    assert told.exit_code in {0, REFUSED}, told.output
    assert bool(read(file).refusals) == any(read(Path(each)).refusals for each in files)
    points = read(file).details["points"]
    assert len(points) == 4
    assert sum(point["load"].endswith("at a time") for point in points) == 3
    assert {figure.key: figure.value for _, figure in read(file).figures()}["nodes"] >= 1


def test_a_process_that_is_not_there_is_one_clear_line(engine_in_thread: Callable[..., Any]) -> None:
    url = engine_in_thread().url
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    result = invoke("overhead", "--direct", url, "--via", url, "--model", "m", "--cpu-pid", f"hub={gone.pid}")
    assert result.exit_code == 1
    assert f"no process {gone.pid}" in result.stderr


@pytest.mark.parametrize(
    "numbers",
    [[signal.SIGINT], [signal.SIGTERM], [signal.SIGHUP], [signal.SIGINT, signal.SIGTERM]],
    ids=["Ctrl-C", "SIGTERM", "terminal closed", "two at once"],
)
def test_control_c_keeps_what_was_measured(
    engine_in_thread: Callable[..., Any],
    obedient_answer: Any,
    tmp_path: Path,
    hangup: None,
    numbers: list[signal.Signals],
) -> None:
    async def interrupts_at_the_fifth(engine: Any) -> None:
        if len(server.requests) == 5:
            for number in numbers:
                os.kill(program.pid, number)
            await engine.reader.read()
        else:
            await obedient_answer(engine)

    server, file = engine_in_thread(interrupts_at_the_fifth), tmp_path / "result.json"
    arguments = [*SERVING, "--base-url", server.url, "--duration", "100", "--json", str(file)]
    program = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.cli", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    output, errors = program.communicate(timeout=60)
    assert program.returncode == 130, errors.decode()
    assert b"Interrupted" in output
    found = metrics_in(file)
    assert (found["completed"], found["unfinished"], found["interrupted"]) == (3, 1, True)
    assert read(file).interrupted


def test_the_version_can_be_asked_for_in_two_ways() -> None:
    assert invoke("--version").output == invoke("version").output == f"porten-bench {__version__}\n"


@pytest.mark.parametrize(
    "command", ["serving", "figures", "overhead", "capacity", "tunnel", "node", "cold-load"]
)
def test_help_teaches_with_an_example(command: str) -> None:
    result = invoke(command, "-h")
    assert result.exit_code == 0
    assert f"porten-bench {command} " in result.output
    assert "Example" in result.output
