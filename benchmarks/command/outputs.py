"""Where results go: seen to be writable before anything is measured, since afterwards is too late.

Owns that check. Must not know what is written.
"""

import os
from pathlib import Path
from typing import Final, TypeVar

import typer

from benchmarks.errors import SettingInvalid

STDOUT: Final = "-"

File = TypeVar("File", str, Path)


def writable(file: File | None) -> File | None:
    """An option's file as it came; nothing that is in it is touched. What is no plain file is not tried.

    Raises:
        typer.BadParameter: it cannot be written.
    """
    if file is None or file == STDOUT:
        return file
    try:
        path = Path(os.path.realpath(file))  # of a link, it is the file that is tried, and removed again
        was_there = path.exists()
        if was_there and not (path.is_file() or path.is_dir()):
            return file
        with path.open("ab"):
            pass
        if not was_there:
            path.unlink()
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "that is no name of a file"
        raise typer.BadParameter(f"cannot write {file}: {reason}") from error
    return file


def check_apart(*files: str | Path | None) -> None:
    """Refuse a command that would write over what it reads or has just written.

    Raises:
        SettingInvalid: two of the files are one.
    """
    plain = [os.path.realpath(file) for file in files if file is not None and file != STDOUT]
    for place, file in enumerate(plain):
        if file in plain[:place]:
            raise SettingInvalid(f"{file} is named twice: one would be written over the other")
