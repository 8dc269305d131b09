"""What replicas were seen to take, kept on the disk of one node: a restart forgets nothing.

Owns the file. What a finding means is `runtime.learning`'s business. Must not know processes or devices.
"""

import logging
from pathlib import Path
from typing import Annotated

import msgspec

from runtime.data_dir import private_directory, write_private
from runtime.learning import MOST_SHAPES, Finding, Findings, Shape

logger = logging.getLogger(__name__)

FILE_NAME = "memory.json"
ASIDE_NAME = "memory.json.unreadable"
_MOST_BYTES = 256 * 1024

_Bytes = Annotated[int, msgspec.Meta(gt=0, le=1 << 50)]
_Count = Annotated[int, msgspec.Meta(gt=0, le=1 << 40)]
_Text = Annotated[str, msgspec.Meta(max_length=200)]


class _Entry(msgspec.Struct, frozen=True):
    """One shape with what was found, as the file has it."""

    digest: _Text
    backend: _Text
    context: _Count
    slots: _Count
    measured: _Bytes
    estimated: _Bytes
    devices: _Count = 1


class _File(msgspec.Struct, frozen=True):
    shapes: Annotated[list[_Entry], msgspec.Meta(max_length=MOST_SHAPES)]


class MemoryBook:
    """The findings of one state directory."""

    def __init__(self, state_dir: Path) -> None:
        self._path = state_dir / FILE_NAME
        self._findings = Findings()

    def open(self) -> None:
        """Read what an earlier run found; a file that makes no sense is set aside. Blocks on the disk."""
        try:
            if self._path.stat().st_size > _MOST_BYTES:
                raise msgspec.ValidationError("it is too large")
            read = msgspec.json.decode(self._path.read_bytes(), type=_File)
        except FileNotFoundError:
            return
        except (OSError, msgspec.MsgspecError, UnicodeError) as error:
            self._set_aside(error)
            return
        self._findings = Findings(
            (Shape(e.digest, e.backend, e.context, e.slots, e.devices), Finding(e.measured, e.estimated))
            for e in read.shapes
        )

    def planned(self, shape: Shape, estimated: int) -> int:
        """Bytes to reserve for a shape; see `Findings.planned`."""
        return self._findings.planned(shape, estimated)

    def learn(self, shape: Shape, *, measured: int, estimated: int) -> bool:
        """Take note of a measurement; whether it is news, to be kept with `write`."""
        return self._findings.learn(shape, measured=measured, estimated=estimated)

    def content(self) -> bytes:
        """What is to be written, as it is now."""
        entries = [
            _Entry(s.digest, s.backend, s.context, s.slots, f.measured, f.estimated, s.devices)
            for s, f in self._findings
        ]
        return msgspec.json.encode(_File(entries))

    def write(self, content: bytes) -> None:
        """Replace the file in one step. A full disk costs what was learnt, and is said. Blocks."""
        try:
            private_directory(self._path.parent)
            write_private(self._path, content)
        except OSError as error:
            fields = {"event": "memory_book_unsaved", "reason": str(error.strerror)}
            logger.warning("what replicas take could not be kept", extra=fields)

    def _set_aside(self, error: Exception) -> None:
        fields = {"event": "memory_book_unreadable", "kept_as": ASIDE_NAME, "reason": str(error)}
        logger.warning("what replicas were seen to take cannot be read: it is learnt anew", extra=fields)
        try:
            self._path.replace(self._path.with_name(ASIDE_NAME))
        except OSError as failed:
            logger.warning("it could not be set aside", extra={**fields, "reason": str(failed.strerror)})
