"""What all commands of `porten` share: the settings, the terminal, and how a failure is told.

Must not know any command.
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import typer
from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)
from rich.table import Table
from typer.core import TyperGroup

from models.errors import ModelsError
from runtime.config import LoadedConfig, NodeConfig, load_config
from runtime.errors import RuntimeFault

WIDTH_WITHOUT_TERMINAL = 1000  # a program reads it: nothing is wrapped or cut
_PLAIN_STEP = 0.1
_SHORT_PHASES = frozenset({"verifying"})
"""Over too soon for more than a line."""


@dataclass(frozen=True, slots=True)
class Settings:
    """What the global options said; the settings are read when a command needs them."""

    path: Path | None

    def load(self, **options: object) -> LoadedConfig:
        """Read the settings, the command's own options first."""
        given = {name: value for name, value in options.items() if value is not None}
        return load_config(self.path, options=given)


def settings(context: typer.Context, **options: object) -> NodeConfig:
    """The settings for a command."""
    return loaded(context, **options).config


def loaded(context: typer.Context, **options: object) -> LoadedConfig:
    """The settings for a command, with their origins."""
    found = context.find_object(Settings) or Settings(None)
    return found.load(**options)


def console(*, error: bool = False) -> Console:
    """The terminal, or a plain stream of lines wide enough to be read by a program."""
    stream = sys.stderr if error else sys.stdout
    width = None if stream.isatty() else WIDTH_WITHOUT_TERMINAL
    return Console(file=stream, width=width, highlight=False, soft_wrap=width is not None)


def columns(*names: str) -> Table:
    """A plain table; what is too long for the terminal goes on in the next line, never cut."""
    table = Table(box=None)
    for name in names:
        table.add_column(name, overflow="fold")
    return table


def say(text: str) -> None:
    """Print one line, as it is."""
    console().print(text, markup=False)


class FaultTellingGroup(TyperGroup):
    """Turns what the node raises on purpose into one line on standard error and exit code 1."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command."""
        try:
            return super().invoke(ctx)
        except (RuntimeFault, ModelsError) as fault:
            console(error=True).print(f"error: {fault}", markup=False)
            raise typer.Exit(1) from None


class StepBar:
    """A progress bar on a terminal; elsewhere a line for each phase, and for each tenth of a long one."""

    def __init__(self, title: str, *, counts_bytes: bool = True) -> None:
        self._title = title
        self._console = console()
        self._bar = _bar(self._console, counts_bytes=counts_bytes) if self._console.is_terminal else None
        self._task: TaskID | None = None
        self._said: tuple[str, int] | None = None

    def show(self, phase: str, done: float = 0, total: float | None = None) -> None:
        """Show how far it is."""
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, description=f"{self._title}: {phase}", completed=done, total=total)
            return
        counted = total if phase not in _SHORT_PHASES else None
        tenth = int(done / counted / _PLAIN_STEP) if counted else 0
        if (phase, tenth) != self._said:
            self._said = (phase, tenth)
            share = f" {done / counted:.0%}" if counted else ""
            self._console.print(f"{self._title}: {phase}{share}", markup=False)

    @contextmanager
    def shown(self) -> Iterator["StepBar"]:
        """Draw it while the block lasts."""
        if self._bar is None:
            yield self
            return
        with self._bar:
            self._task = self._bar.add_task(self._title, total=None)
            yield self


def _bar(terminal: Console, *, counts_bytes: bool) -> Progress:
    counts = [DownloadColumn(), TimeRemainingColumn()] if counts_bytes else [MofNCompleteColumn()]
    return Progress(SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), *counts, console=terminal)


def size(count: float | None) -> str:
    """Bytes for people."""
    if count is None:
        return "?"
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"
