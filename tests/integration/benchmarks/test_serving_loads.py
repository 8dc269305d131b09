"""`porten-bench serving` with its loads, from arguments to output, against a fake engine."""

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
from typer.testing import CliRunner, Result

from benchmarks.cli import app
from benchmarks.reports.result import read

SERVING = (
    "serving",
    "--model",
    "m",
    "--quiet",
    "--prompt-tokens",
    "4",
    "--output-tokens",
    "3",
    "--seed",
    "5",
)
BARE = ("serving", "--model", "m", "--quiet", "--seed", "5")
SECRET = "xylophone"


def invoke(*arguments: str) -> Result:
    return CliRunner().invoke(app, list(arguments), env={"COLUMNS": "200"})


def asked(server: Any) -> list[list[str]]:
    """What each request said, the probe left out."""
    return [[one["content"] for one in engine.body["messages"]] for engine in server.requests[1:]]


def test_a_conversation_sends_back_what_was_really_answered(
    engine_in_thread: Callable[..., Any], tmp_path: Path, stream_head: bytes
) -> None:
    async def says_something_new(engine: Any) -> None:
        engine.send(stream_head)
        for text in (f"answer{len(server.requests)}", " and", " more"):
            engine.token(text)
        engine.end()

    server, file = engine_in_thread(says_something_new), tmp_path / "result.json"
    found = invoke(*SERVING, "--base-url", server.url, "--turns", "3", "--requests", "3", "--json", str(file))
    assert found.exit_code == 0, found.output
    first, second, third = asked(server)
    assert second == [*first, "answer2 and more", second[2]]
    assert third == [*second, "answer3 and more", third[4]]
    written = file.read_text()
    assert "answer2" not in written + found.output
    assert first[0] not in written
    assert read(file).settings["workload"]["turns"] == "3"  # type: ignore[index]


def test_a_conversation_of_completions_is_one_text(engine_in_thread: Callable[..., Any]) -> None:
    async def in_one_piece(engine: Any) -> None:
        usage = {"prompt_tokens": 4, "completion_tokens": 3}
        engine.whole("200 OK", {"choices": [{"text": " so it is"}], "usage": usage})

    server = engine_in_thread(in_one_piece)
    arguments = ("--endpoint", "completions", "--no-stream", "--turns", "2", "--requests", "2")
    assert invoke(*SERVING, "--base-url", server.url, *arguments).exit_code == 0
    _, first, second = (engine.body["prompt"] for engine in server.requests)
    assert second.startswith(f"{first} so it is ")


def test_what_a_dataset_says_is_asked_and_told_nobody(
    engine_in_thread: Callable[..., Any], obedient_answer: Any, tmp_path: Path
) -> None:
    async def repeats_the_question_in_an_error(engine: Any) -> None:
        if len(server.requests) % 2:
            await obedient_answer(engine)
        else:
            message = f"cannot answer {engine.body['messages'][0]['content']}"
            engine.whole("503 Service Unavailable", {"error": {"message": message, "code": "overloaded"}})

    server, file, data = (
        engine_in_thread(repeats_the_question_in_an_error),
        tmp_path / "r.json",
        tmp_path / "d",
    )
    data.write_text(
        json.dumps([{"conversations": [{"from": "human", "value": f"{SECRET} {n}"}]} for n in "ab"])
    )
    arguments = ("--dataset", str(data), "--requests", "5", "--max-errors", "100%", "--json", str(file))
    found = invoke(*BARE, "--base-url", server.url, *arguments)
    assert found.exit_code == 0, found.output
    assert {said[0] for said in asked(server)} == {f"{SECRET} a", f"{SECRET} b"}
    assert "3 x http_503:overloaded: the server's words are left out" in found.output
    assert SECRET not in file.read_text() + found.output
    assert read(file).settings["workload"]["conversations"] == 2  # type: ignore[index]
    assert "dataset_repeated" in {remark.code for remark in read(file).remarks}


def test_a_trace_is_replayed_with_its_lengths(engine_in_thread: Callable[..., Any], tmp_path: Path) -> None:
    server, file, trace = engine_in_thread(), tmp_path / "r.json", tmp_path / "day.csv"
    trace.write_text(
        "TIMESTAMP,ContextTokens,GeneratedTokens\n"
        "2023-11-16 18:15:46.6805900,5,2\n2023-11-16 18:15:48.6805900,7,3\n2023-11-16 18:15:49.6805900,9,4\n"
    )
    arguments = ("--trace", str(trace), "--speed", "20", "--json", str(file))
    found = invoke(*BARE, "--base-url", server.url, *arguments)
    assert found.exit_code == 0, found.output
    assert sorted(len(said[0].split()) for said in asked(server)) == [5, 7, 9]
    assert [engine.body["max_tokens"] for engine in server.requests[1:]] == [2, 3, 4]
    written = read(file)
    assert written.settings["load"] == {"kind": "replay", "trace": "day.csv", "requests": 3, "speed": 20.0}
    assert written.details["metrics"]["duration_s"] >= 0.15  # type: ignore[index]


def test_a_bad_line_of_a_file_is_a_usage_error(tmp_path: Path) -> None:
    trace = tmp_path / "day.csv"
    trace.write_text("timestamp,prompt_tokens,output_tokens\n1,2,many\n")
    found = invoke(*BARE, "--base-url", "http://localhost:1", "--trace", str(trace))
    assert found.exit_code == 2
    assert "day.csv, line 2: output_tokens is no whole number" in found.output


def test_a_ramp_has_figures_of_each_step_and_a_plot(
    engine_in_thread: Callable[..., Any], tmp_path: Path
) -> None:
    server, file = engine_in_thread(), tmp_path / "result.json"
    arguments = ("--ramp", "1,2,4", "--requests", "8", "--warmup", "4", "--json", str(file))
    found = invoke(*SERVING, "--base-url", server.url, *arguments)
    assert found.exit_code == 0, found.output
    written = read(file)
    figures = {figure.key: figure.value for _, figure in written.figures()}
    assert [figures[f"c{level}/completed"] for level in (1, 2, 4)] == [8, 8, 8]
    assert figures["c4/ttft_p50_ms"] >= 0
    assert written.remarks[0].code in {"knee", "no_knee"}
    short = [group for group in written.groups if not group.detail]
    assert written.groups[: len(short)] == short
    assert [figure.key for figure in short[-1].figures] == [
        f"steps/c{level}/output_tokens_per_s" for level in (1, 2, 4)
    ]
    codes = [remark.code for remark in written.remarks]
    assert codes.count("percentiles_left_out") == codes.count("no_intervals") == 1  # once for all steps
    assert "At 1, 2, 4: Too short for intervals" in found.output
    plot = written.plots[0]
    assert {line.name: len(line.x) for line in plot.lines} == {
        "E2EL, mean": 3,
        "TTFT, p50": 3,
    }  # too few for p90
    assert written.settings["load"] == {"kind": "ramp", "steps": "concurrency:1,2,4"}
    assert len(server.requests) == 1 + 3 * (4 + 8)
    prompts = [said[0] for said in asked(server)]
    assert len(set(prompts)) == len(prompts)  # no step finds another's prompts in a cache


def test_a_ramp_ends_where_requests_are_turned_away(
    engine_in_thread: Callable[..., Any], obedient_answer: Any, tmp_path: Path
) -> None:
    busy: list[Any] = []
    full = asyncio.Semaphore(2)

    async def takes_two_at_a_time(engine: Any) -> None:
        if full.locked():
            engine.whole("503 Service Unavailable", {"error": {"message": "full", "code": "overloaded"}})
            return
        async with full:
            busy.append(engine)
            await asyncio.sleep(0.005)
            await obedient_answer(engine)

    server, file = engine_in_thread(takes_two_at_a_time), tmp_path / "result.json"
    arguments = ("--ramp", "auto", "--requests", "60", "--json", str(file))
    found = invoke(*SERVING, "--base-url", server.url, *arguments)
    assert found.exit_code in {0, 3}, found.output  # a machine with much else to do makes the generator late
    written = read(file)
    assert [step["level"] for step in written.details["steps"]] == [1, 2, 4]  # type: ignore[attr-defined, index]
    figures = {figure.key: figure.value for _, figure in written.figures()}
    assert figures["knee/level"] == 2
    assert "errors_over_bound" in {remark.code for remark in written.remarks}


def started(server: Any, file: Path, *arguments: str) -> "subprocess.Popen[bytes]":
    command = [*SERVING, "--base-url", server.url, "--duration", "100", "--json", str(file), *arguments]
    return subprocess.Popen(
        [sys.executable, "-m", "benchmarks.cli", *command],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,  # as in a shell: a group of its own
    )


def at_the_ninth(obedient: Any, act: Callable[[], None]) -> Any:
    seen: list[Any] = []

    async def answer(engine: Any) -> None:
        seen.append(engine)
        if len(seen) < 9:
            await obedient(engine)
            return
        if len(seen) == 9:
            act()
        await engine.reader.read()

    return answer


@pytest.mark.parametrize(
    "end",
    [lambda pid: os.killpg(pid, signal.SIGINT), lambda pid: os.kill(pid, signal.SIGTERM)],
    ids=["Ctrl-C in a terminal", "SIGTERM"],
)
def test_being_ended_ends_all_processes_and_keeps_what_they_measured(
    engine_in_thread: Callable[..., Any], obedient_answer: Any, tmp_path: Path, end: Callable[[int], None]
) -> None:
    children: list[psutil.Process] = []

    def interrupt() -> None:
        children.extend(psutil.Process(program.pid).children())
        end(program.pid)

    server, file = engine_in_thread(at_the_ninth(obedient_answer, interrupt)), tmp_path / "result.json"
    program = started(server, file, "--concurrency", "2", "--processes", "2")
    output, errors = program.communicate(timeout=60)
    assert program.returncode == 130, errors.decode()
    assert b"Interrupted" in output
    found = read(file).details["metrics"]
    assert (found["completed"], found["interrupted"]) == (7, True)  # type: ignore[index]
    assert len(children) == 2
    assert not psutil.wait_procs(children, timeout=10)[1]


def test_a_generator_process_that_is_killed_refuses_the_result(
    engine_in_thread: Callable[..., Any], obedient_answer: Any, tmp_path: Path
) -> None:
    def shoot() -> None:
        psutil.Process(program.pid).children()[0].kill()

    server, file = engine_in_thread(at_the_ninth(obedient_answer, shoot)), tmp_path / "result.json"
    program = started(server, file, "--concurrency", "2", "--processes", "2")
    output, errors = program.communicate(timeout=60)
    assert program.returncode == 3, errors.decode()
    assert b"Not to be believed" in output
    refusals = read(file).refusals
    assert [refusal.code for refusal in refusals] == ["generator_lost"]
    assert "was ended by signal 9" in refusals[0].text


def test_a_killed_command_leaves_no_generator_behind(
    engine_in_thread: Callable[..., Any], obedient_answer: Any, tmp_path: Path
) -> None:
    children: list[psutil.Process] = []

    def kill() -> None:
        children.extend(psutil.Process(program.pid).children())
        os.kill(program.pid, signal.SIGKILL)

    server = engine_in_thread(at_the_ninth(obedient_answer, kill))
    program = started(server, tmp_path / "none.json", "--concurrency", "2", "--processes", "2")
    program.communicate(timeout=60)
    assert len(children) == 2
    assert not psutil.wait_procs(children, timeout=10)[1]


@pytest.mark.parametrize(
    "arguments",
    [
        ("--concurrency", "1", "--processes", "2"),
        ("--processes", "1000", "--rate", "1", "--pin"),
        ("--trace", "/no/such/file"),
        ("--dataset", "/no/such/file"),
        ("--ramp", "4,2"),
        ("--ramp", "1,2", "--concurrency", "2"),
        ("--speed", "2"),
        ("--think-time", "2"),
        ("--arrivals", "burst", "--rate", "1"),
    ],
)
def test_contradictions_are_usage_errors(arguments: tuple[str, ...]) -> None:
    result = invoke(*BARE, "--base-url", "http://localhost:1", *arguments)
    assert result.exit_code == 2, result.output
    assert "Traceback" not in result.output
