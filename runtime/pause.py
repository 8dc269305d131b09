"""The owner's pause, kept on the disk so that a restart does not end it.

Owns the file and how long a pause is. Must not know what pausing means.
"""

import json
import re
import time
from dataclasses import dataclass
from pathlib import Path

from runtime.data_dir import private_directory, write_private

FILE_NAME = "pause.json"
_UNITS_S = {"d": 86_400, "h": 3_600, "m": 60, "s": 1}
_LENGTH = re.compile(r"(?:\d+[dhms])+")


@dataclass(frozen=True, slots=True)
class Pause:
    """A pause that stands; `until` is its end in seconds since the epoch, None where the owner ends it."""

    until: float | None = None

    def stands(self, now: float) -> bool:
        """Whether it has not run out."""
        return self.until is None or now < self.until


class PauseFile:
    """The pause of one state directory."""

    def __init__(self, state_dir: Path) -> None:
        self._path = state_dir / FILE_NAME

    def read(self, now: float | None = None) -> Pause | None:
        """The pause that stands, if any. A file that makes no sense pauses: it meant something."""
        try:
            until = json.loads(self._path.read_bytes())["until"]
            pause = Pause(None if until is None else float(until))
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError):
            return Pause()
        return pause if pause.stands(time.time() if now is None else now) else None

    def write(self, pause: Pause) -> None:
        """Pause from now on, in place of an earlier pause."""
        private_directory(self._path.parent)
        write_private(self._path, json.dumps({"until": pause.until}).encode())

    def clear(self) -> bool:
        """End the pause; returns whether there was one."""
        was = self.read() is not None
        self._path.unlink(missing_ok=True)
        return was


def parse_length(text: str) -> float:
    """Seconds of `90s`, `30m`, `2h`, `1d` or `1h30m`.

    Raises:
        ValueError: it is none of these, or no time at all.
    """
    compact = text.replace(" ", "").lower()
    if not _LENGTH.fullmatch(compact):
        raise ValueError(f"{text!r} is no length of time such as 30m, 2h or 1h30m")
    parts = re.findall(r"(\d+)([dhms])", compact)
    seconds = sum(int(count) * _UNITS_S[unit] for count, unit in parts)
    if not 0 < seconds <= 366 * _UNITS_S["d"]:
        raise ValueError(f"{text!r} is not between a second and a year")
    return float(seconds)
