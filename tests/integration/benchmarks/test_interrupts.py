"""Ctrl-C, once and again, as a terminal sends it: to a real program and its whole group."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from benchmarks.reports.result import read

STUBBORN = """
import signal, time
signal.signal(signal.SIGINT, lambda *_: print("heard Ctrl-C", flush=True))
signal.signal(signal.SIGTERM, lambda *_: print("asked to end", flush=True))
print("here", flush=True)
while True:
    time.sleep(60)
"""

SLEEPER = """
import time
print("here", flush=True)
time.sleep(60)
"""

PROGRAM = """
import os, signal, sys
from pathlib import Path
import typer
from benchmarks.command import terminal
from benchmarks.machine.processes import ManagedProcess, clean_environment
from benchmarks.reports.result import Result

stubborn, log, file, *when = sys.argv[1:]

async def measure(stop, progress):
    environment = clean_environment()
    child = ManagedProcess("child", [sys.executable, "-c", stubborn], log=Path(log), environment=environment)
    async with child:
        await child.wait_for_line("here")
        print(f"measuring {child.pid}", file=sys.stderr, flush=True)
        await stop.wait()
        print("stopping", file=sys.stderr, flush=True)
    return True

async def measured(stop, progress):
    return stop.is_set()

def command():
    with terminal.at_work():
        made = terminal.made()
        interrupted = terminal.run(measured if when else measure, quiet=True)
        if when:
            os.kill(os.getpid(), signal.SIGINT)
        result = Result(benchmark="hub", made=made, settings={}, groups=[], interrupted=interrupted)
        terminal.conclude(result, file)

app = typer.Typer()
app.command()(command)
app(args=[])
"""


@pytest.fixture
def start(tmp_path: Path, hangup: None) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    programs: list[subprocess.Popen[str]] = []

    def begin(*arguments: str) -> subprocess.Popen[str]:
        programs.append(
            subprocess.Popen(
                [sys.executable, *arguments],
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                text=True,
                start_new_session=True,  # as in a shell: a group of its own
            )
        )
        return programs[-1]

    yield begin
    for program in programs:
        program.kill()
        program.communicate()


def until(program: subprocess.Popen[str], word: str) -> str:
    assert program.stderr is not None
    said = []
    for line in program.stderr:
        said.append(line)
        if word in line:
            return line
    raise AssertionError(f"it ended without {word!r}: {''.join(said)}")


def control_c(program: subprocess.Popen[str]) -> None:
    os.killpg(program.pid, signal.SIGINT)


def stopping(
    start: Callable[..., subprocess.Popen[str]], tmp_path: Path
) -> tuple[subprocess.Popen[str], int]:
    """A program that waits for its stubborn child to end, and the child."""
    program = start("-c", PROGRAM, STUBBORN, str(tmp_path / "log"), str(tmp_path / "result.json"))
    child = int(until(program, "measuring").split()[1])
    control_c(program)
    until(program, "Ending;")
    until(program, "stopping")
    return program, child


def test_a_second_one_waits_for_nothing_and_loses_nothing(
    start: Callable[..., subprocess.Popen[str]], tmp_path: Path
) -> None:
    program, child = stopping(start, tmp_path)
    assert psutil.pid_exists(child)
    control_c(program)
    until(program, "Still ending")
    assert program.wait(30) == 130
    assert read(tmp_path / "result.json").interrupted
    assert not psutil.pid_exists(child)
    assert "heard Ctrl-C" not in (tmp_path / "log").read_text()


def test_a_third_one_ends_all_of_it_at_once(
    start: Callable[..., subprocess.Popen[str]], tmp_path: Path
) -> None:
    program = start("-c", PROGRAM, STUBBORN, str(tmp_path / "log"), str(tmp_path / "result.json"))
    child = psutil.Process(int(until(program, "measuring").split()[1]))
    os.kill(program.pid, signal.SIGSTOP)  # all three are there before it can do anything
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        os.kill(program.pid, number)
    os.kill(program.pid, signal.SIGCONT)
    until(program, "Ended at once")
    assert program.wait(30) == 130
    assert not (tmp_path / "result.json").exists()
    assert not psutil.wait_procs([child], timeout=10)[1]


def test_one_that_comes_while_a_result_is_written_does_not_lose_it(
    start: Callable[..., subprocess.Popen[str]], tmp_path: Path
) -> None:
    program = start("-c", PROGRAM, STUBBORN, str(tmp_path / "log"), str(tmp_path / "result.json"), "written")
    until(program, "Ending;")
    assert program.wait(30) == 0
    assert not read(tmp_path / "result.json").interrupted


def test_what_a_killed_program_started_ends_with_it(
    start: Callable[..., subprocess.Popen[str]], tmp_path: Path
) -> None:
    program = start("-c", PROGRAM, SLEEPER, str(tmp_path / "log"), "-")
    child = psutil.Process(int(until(program, "measuring").split()[1]))
    program.kill()
    assert not psutil.wait_procs([child], timeout=10)[1]


@pytest.mark.parametrize("command", ["routing", "policy"])
def test_a_worker_does_not_hear_it_and_is_not_waited_for(
    start: Callable[..., subprocess.Popen[str]], tmp_path: Path, command: str
) -> None:
    file = tmp_path / "result.json"
    program = start("-m", "benchmarks.cli", command, "--json", str(file))  # minutes, where nobody stops it
    until(program, "...")
    worker = at_work(psutil.Process(program.pid))
    control_c(program)
    assert program.wait(60) == 130
    assert read(file).interrupted
    assert not worker.is_running()


def at_work(program: psutil.Process) -> psutil.Process:
    """Its worker, once it does more than to start."""
    while True:
        for child in program.children():
            if "spawn_main" in " ".join(child.cmdline()) and child.cpu_times().user > 1:
                return child
        time.sleep(0.05)
