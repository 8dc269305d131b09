"""How a command meets its terminal: Ctrl-C or SIGTERM, progress, one-line errors, where the result goes.

Owns what all commands of ``porten-bench`` do alike. Must not know what is measured.
"""

import asyncio
import secrets
import sys
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, TypeVar

import typer
import uvloop
from rich.console import Console
from rich.markup import escape

from benchmarks.command.interrupts import Interrupts
from benchmarks.command.outputs import STDOUT
from benchmarks.command.progress import Progress
from benchmarks.errors import BenchmarkError, SettingInvalid
from benchmarks.machine.environment import describe_environment
from benchmarks.reports import page, result
from benchmarks.reports.result import Made, Result

INTERRUPTED: Final = 130
"""Exit code after Ctrl-C."""
REFUSED: Final = 3
"""Exit code where something was measured, and is not to be believed."""

_INTERRUPTS: Final = Interrupts()
"""Of the process, as signals are: heeded from where a command has something to lose until its end."""

T = TypeVar("T")


def run(work: Callable[[asyncio.Event, Progress], Coroutine[Any, Any, T]], *, quiet: bool) -> T:
    """Run a measurement with its progress on stderr; an interrupt sets the event it is given."""

    async def measure() -> T:
        stop = asyncio.Event()
        with _INTERRUPTS.stopping(stop):
            async with Progress(Console(stderr=True), quiet=quiet) as progress:
                return await work(stop, progress)

    _INTERRUPTS.heed()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(measure())


def conclude(found: Result, json_file: str | None) -> None:
    """Show a result, write it where it was asked for (``-`` is stdout), and end with its exit code.

    Raises:
        BenchmarkError: the file cannot be written; the document went to standard output.
        typer.Exit: it was interrupted, or is not to be believed.
    """
    _INTERRUPTS.heed()
    unwritten = _write(found, json_file)  # first: nothing that is shown can be in its way
    to_stdout = json_file == STDOUT or unwritten is not None
    page.show(Console(stderr=to_stdout), found)
    if to_stdout:
        sys.stdout.buffer.write(result.to_json(found))
        sys.stdout.flush()
    if unwritten is not None:
        raise BenchmarkError(
            f"cannot write {json_file}: {unwritten.strerror}. The result went to standard output instead"
        )
    if found.interrupted:
        raise typer.Exit(INTERRUPTED)
    if found.refusals:
        raise typer.Exit(REFUSED)


def _write(found: Result, json_file: str | None) -> OSError | None:
    if json_file not in {None, STDOUT}:
        try:
            result.write(found, Path(str(json_file)))
        except OSError as error:
            return error
    return None


def made(*, quick: bool = False) -> Made:
    """How the result comes about: now, by this command line, on this machine.

    Keys come from files and the environment: the command line never holds one.
    """
    at = datetime.now(UTC).isoformat(timespec="seconds")
    command = ["porten-bench", *sys.argv[1:]]
    return Made(at=at, command=command, environment=describe_environment(), quick=quick)


def fresh_seed() -> int:
    """A seed of chance: a fixed one would repeat the last run's prompts, and measure the prompt cache."""
    return secrets.randbelow(1 << 31)


@contextmanager
def at_work() -> Iterator[None]:
    """All that a command does: Ctrl-C loses no result, and what cannot be measured is one line.

    Raises:
        typer.BadParameter: a setting makes no sense.
        typer.Exit: with the right exit code where something cannot be measured, or it was ended at once.
    """
    try:
        yield
    except SettingInvalid as error:
        raise typer.BadParameter(str(error)) from error
    except BenchmarkError as error:
        Console(stderr=True).print(f"[red]Error:[/] {escape(str(error))}", highlight=False, soft_wrap=True)
        raise typer.Exit(1) from error
    except KeyboardInterrupt as error:
        raise typer.Exit(INTERRUPTED) from error
    finally:
        _INTERRUPTS.restore()
