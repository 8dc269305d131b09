"""Runs ``porten-bench`` as a user does, and keeps what it writes.

Owns the processes and where their results go. Must not know what is measured.
"""

import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from benchmarks.reference.suite import Measurement
from benchmarks.reports import result
from benchmarks.reports.result import Result


@dataclass(frozen=True, slots=True)
class Place:
    """Where it is measured.

    Attributes:
        results: the folder of the results. Relative, so that no path of a machine stands in them.
        data: data directory with engine and model.
    """

    results: Path
    data: Path

    def file(self, name: str) -> Path:
        """The result of that name."""
        return self.results / f"{name}.json"


def measure(wanted: Sequence[Measurement], place: Place, console: Console) -> list[str]:
    """Run one after the other; returns the names of those that failed, whose files are not touched."""
    place.results.mkdir(parents=True, exist_ok=True)
    failed = []
    for number, each in enumerate(wanted, 1):
        console.rule(f"{number} of {len(wanted)}: {each.name}, some {each.minutes:g} minutes")
        began = time.monotonic()
        status = run(each, place.file(each.name), place.data)
        console.print(
            f"{each.name}: {_outcome(status)} after {time.monotonic() - began:.0f} s", highlight=False
        )
        if status:
            failed.append(each.name)
    return failed


def run(wanted: Measurement, file: Path, data: Path, more: Sequence[str] = ()) -> int:
    """Run it; returns the exit status. Its result replaces the file only where it succeeds."""
    fresh = file.with_suffix(".part.json")
    where = ("--data-dir", str(data)) if wanted.needs_model else ()
    command = ["-m", "benchmarks.cli", *wanted.arguments, *where, *more, "--json", str(fresh)]
    done = subprocess.run([sys.executable, *command], check=False)  # noqa: S603 - our own program
    if done.returncode == 0:
        fresh.replace(file)
    else:
        fresh.unlink(missing_ok=True)
    return done.returncode


def read_all(names: Sequence[str], folder: Path) -> dict[str, Result]:
    """The results that are there, by name.

    Raises:
        ResultUnreadable: one of them is damaged or of another version.
    """
    files = {name: folder / f"{name}.json" for name in names}
    return {name: result.read(file) for name, file in files.items() if file.exists()}


def _outcome(status: int) -> str:
    return "done" if status == 0 else f"failed with status {status}"
