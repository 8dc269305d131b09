"""How the pool and its workers speak: frames over the worker's standard input and output.

Owns the frames. The pool's are pickled, since they hold whatever a load is made of, and go to its own
children only; a worker's are MessagePack, which is quick for many samples. No frame is ever written to a
file.
"""

import asyncio
import pickle  # nosec B403
from dataclasses import dataclass
from typing import Final

import msgspec

from benchmarks.generator.client import Sample
from benchmarks.generator.generators import Phase
from benchmarks.generator.loads import Share
from benchmarks.generator.target import Target
from benchmarks.generator.use import ProcessUse
from benchmarks.generator.workloads import Source

_LENGTH_BYTES: Final = 8


@dataclass(frozen=True, slots=True)
class Assignment:
    """What a worker is for: sent once, first."""

    target: Target
    source: Source
    share: Share
    core: int | None


@dataclass(frozen=True, slots=True)
class Begin:
    """Begin the phase that was sent, at that moment of the machine's monotonic clock."""

    at: float


@dataclass(frozen=True, slots=True)
class Stop:
    """End the phase now, and say what was seen."""


Order = Assignment | Phase | Begin | Stop


class Ready(msgspec.Struct, tag=True):
    """The assignment or the phase is here, and everything waits for the next order."""


class Counted(msgspec.Struct, tag=True):
    """So much more has been done."""

    done: int
    failed: int
    tokens: int


class Seen(msgspec.Struct, tag=True):
    """What came of the phase."""

    samples: list[Sample]
    began_at: float
    ended_at: float
    unfinished: int
    interrupted: bool
    conversations: int
    in_vain: bool
    use: ProcessUse


class Broken(msgspec.Struct, tag=True):
    """The worker cannot go on; why is said in words that hold nothing of a prompt."""

    why: str


Word = Ready | Counted | Seen | Broken
_words: Final = msgspec.msgpack.Decoder(Word)


def order_frame(order: Order) -> bytes:
    """An order as bytes."""
    return _frame(pickle.dumps(order, protocol=pickle.HIGHEST_PROTOCOL))


def word_frame(word: Word) -> bytes:
    """What a worker says, as bytes."""
    return _frame(msgspec.msgpack.encode(word))


async def read_order(reader: asyncio.StreamReader) -> Order | None:
    """The next order; none once the pool is gone."""
    data = await _read(reader)
    # It comes from the process that started this one, through a pipe that no other has.
    return None if data is None else pickle.loads(data)  # noqa: S301  # nosec B301


async def read_word(reader: asyncio.StreamReader) -> Word | None:
    """What the worker says next; none once it is gone."""
    data = await _read(reader)
    return None if data is None else _words.decode(data)


def _frame(data: bytes) -> bytes:
    return len(data).to_bytes(_LENGTH_BYTES) + data


async def _read(reader: asyncio.StreamReader) -> bytes | None:
    try:
        length = int.from_bytes(await reader.readexactly(_LENGTH_BYTES))
        return await reader.readexactly(length)
    except (asyncio.IncompleteReadError, ConnectionError):
        return None
