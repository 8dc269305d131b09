"""Traces: when real requests came and how long they and their answers were, read from a file.

Owns the formats and their detection by the first line. What a trace's prompts say is unknown, and not this
module's matter. Four formats are known:

- **Porten's JSONL**: an object a line with ``timestamp`` (seconds), ``prompt_tokens``, ``output_tokens``, and
  optionally ``session`` (of two prompts of a session the longer begins with the shorter) or ``prefix`` with
  ``prefix_tokens`` (prompts of one prefix share so many tokens).
- **Porten's CSV**: a head line with the same names.
- **Azure's LLM inference traces** (github.com/Azure/AzurePublicDataset): CSV with ``TIMESTAMP`` (date and
  time), ``ContextTokens``, ``GeneratedTokens``.
- **Mooncake's** (github.com/kvcache-ai/Mooncake): JSONL with ``timestamp`` (milliseconds), ``input_length``,
  ``output_length``, ``hash_ids``: the name of each block of 512 prompt tokens; equal names, equal blocks.
"""

import csv
import itertools
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import msgspec

from benchmarks.errors import InputInvalid
from benchmarks.generator.workloads import MOST_TOKENS, WARMUP_INDEX

MOONCAKE_BLOCK_TOKENS: Final = 512
LARGEST: Final = WARMUP_INDEX
"""Requests of a trace; numbers from there on are those of the warm-up."""

Line = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Block:
    """A part of a prompt that others may have too: the same name, the same words."""

    name: str
    tokens: int


@dataclass(frozen=True, slots=True)
class Arrival:
    """One request of a trace.

    Attributes:
        moment: when it came, in seconds of the trace's own clock.
        blocks: what its prompt begins with; the rest is its own.
    """

    moment: float
    prompt_tokens: int
    output_tokens: int
    blocks: tuple[Block, ...] = ()


@dataclass(frozen=True, slots=True)
class Trace:
    """A whole trace, in order of time, its moments from the first request on."""

    name: str
    form: str
    arrivals: tuple[Arrival, ...]


@dataclass(frozen=True, slots=True)
class Form:
    """A format: the fields that it must have, those it may have, and how one line is read."""

    name: str
    needed: frozenset[str]
    known: frozenset[str]
    read: Callable[[Line], Arrival]

    def matches(self, fields: frozenset[str]) -> bool:
        """Whether a line with these fields is one of its own."""
        return self.needed <= fields


def read_trace(path: Path) -> Trace:
    """Read a trace of any known format.

    Raises:
        InputInvalid: it cannot be read, or a line is wrong; the message says which line and what is wrong.
    """
    name = path.name
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            lines = _lines(name, file)
            first = next(lines, None)
            if first is None:
                raise InputInvalid(name, 0, "the trace is empty")
            form = _detect(name, first)
            found = [_read(name, form, line) for line in itertools.chain([first], lines)]
    except OSError as error:
        raise InputInvalid(name, 0, f"cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise InputInvalid(name, 0, "it is not text (UTF-8)") from error
    if len(found) > LARGEST:
        raise InputInvalid(name, 0, f"more than {LARGEST} requests: cut it")
    return Trace(name, form.name, _from_the_first(name, found))


_Numbered = tuple[int, Line]


def _lines(name: str, file: Iterator[str]) -> Iterator[_Numbered]:
    """Each line that is not empty as a mapping, with its number."""
    numbered = ((number, text) for number, text in enumerate(file, 1) if text.strip())
    first = next(numbered, None)
    if first is None:
        return
    if first[1].lstrip().startswith("{"):
        for number, text in itertools.chain([first], numbered):
            yield number, _object(name, number, text)
    else:
        yield from _rows(name, first[1], numbered)


def _object(name: str, number: int, text: str) -> Line:
    try:
        return msgspec.json.decode(text, type=dict[str, Any])
    except msgspec.DecodeError as error:
        raise InputInvalid(name, number, "it is no JSON object") from error


def _rows(name: str, head: str, numbered: Iterator[tuple[int, str]]) -> Iterator[_Numbered]:
    fields = [field.strip() for field in _cells(name, 1, head)]
    for number, text in numbered:
        cells = _cells(name, number, text)
        if len(cells) != len(fields):
            raise InputInvalid(name, number, f"{len(cells)} cells, where the first line names {len(fields)}")
        yield number, {field: cell.strip() for field, cell in zip(fields, cells, strict=True)}


def _cells(name: str, number: int, text: str) -> list[str]:
    try:
        return next(csv.reader([text], strict=True))
    except csv.Error as error:
        raise InputInvalid(name, number, f"it is no CSV: {error}") from error


def _detect(name: str, first: _Numbered) -> Form:
    fields = frozenset(first[1])
    for form in FORMS:
        if form.matches(fields):
            if unknown := fields - form.known:
                what = ", ".join(sorted(unknown)[:5])
                known = ", ".join(sorted(form.known))
                raise InputInvalid(name, first[0], f"unknown fields: {what}. {form.name} has {known}")
            return form
    known = "; or ".join(", ".join(sorted(form.needed)) for form in FORMS)
    raise InputInvalid(name, first[0], f"no known trace: it must have {known}")


def _read(name: str, form: Form, line: _Numbered) -> Arrival:
    number, fields = line
    if missing := form.needed - fields.keys():
        raise InputInvalid(name, number, f"{', '.join(sorted(missing))} missing")
    try:
        return form.read(fields)
    except ValueError as error:
        raise InputInvalid(name, number, str(error)) from error


def _from_the_first(name: str, found: list[Arrival]) -> tuple[Arrival, ...]:
    # Logs are written by several threads, and some lines lie a little before their time.
    found.sort(key=lambda arrival: arrival.moment)
    begin = found[0].moment
    if not math.isfinite(found[-1].moment - begin):
        raise InputInvalid(name, 0, "its first and last moment are too far apart")
    return tuple(
        Arrival(each.moment - begin, each.prompt_tokens, each.output_tokens, each.blocks) for each in found
    )


def _porten(line: Line) -> Arrival:
    prompt_tokens = _count(line, "prompt_tokens")
    moment, output_tokens = _seconds(line, "timestamp"), _count(line, "output_tokens")
    session, prefix = _name(line, "session"), _name(line, "prefix")
    blocks: tuple[Block, ...] = ()
    if session:
        blocks = (Block(f"session/{session}", prompt_tokens),)
    elif prefix:
        blocks = (Block(f"prefix/{prefix}", min(prompt_tokens, _count(line, "prefix_tokens"))),)
    return Arrival(moment, prompt_tokens, output_tokens, blocks)


def _name(line: Line, field: str) -> str:
    """A name, which may be a number; empty where there is none."""
    found = line.get(field)
    if not isinstance(found, str | int | None):
        raise ValueError(f"{field} is no name")  # noqa: TRY004 - of a line, as all that is wrong with it
    return "" if found is None else str(found)


def _azure(line: Line) -> Arrival:
    try:
        at = datetime.fromisoformat(line["TIMESTAMP"])
    except (TypeError, ValueError) as error:
        raise ValueError("TIMESTAMP is no date with a time, such as 2023-11-16 18:15:46.680590") from error
    moment = (at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp()
    return Arrival(moment, _count(line, "ContextTokens"), _count(line, "GeneratedTokens"))


def _mooncake(line: Line) -> Arrival:
    prompt_tokens, names = _count(line, "input_length"), line.get("hash_ids") or []
    if not isinstance(names, list) or not all(isinstance(name, int) for name in names):
        raise ValueError("hash_ids is no list of whole numbers")
    moment = _seconds(line, "timestamp") / 1000
    return Arrival(moment, prompt_tokens, _count(line, "output_length"), _blocks(names, prompt_tokens))


def _blocks(names: list[int], prompt_tokens: int) -> tuple[Block, ...]:
    size = MOONCAKE_BLOCK_TOKENS
    lengths = [min(size, prompt_tokens - at * size) for at in range(len(names))]
    return tuple(
        Block(f"hash/{name}", length) for name, length in zip(names, lengths, strict=True) if length > 0
    )


def _seconds(line: Line, field: str) -> float:
    try:
        found = float(line[field])
    except (TypeError, ValueError) as error:
        raise ValueError(f"{field} is no number") from error
    if not math.isfinite(found):
        raise ValueError(f"{field} is no number")
    return found


def _count(line: Line, field: str) -> int:
    """A number of tokens, at least 1: an answer of none is asked for with one."""
    if field not in line:
        raise ValueError(f"{field} missing")
    try:
        found = int(line[field])
    except (TypeError, ValueError, OverflowError) as error:
        raise ValueError(f"{field} is no whole number") from error
    if found < 0 or isinstance(line[field], bool | float):
        raise ValueError(f"{field} is no whole number from 0 up")
    if found > MOST_TOKENS:
        raise ValueError(f"{field} is above {MOST_TOKENS}")
    return max(1, found)


_PORTEN: Final = frozenset({"timestamp", "prompt_tokens", "output_tokens"})
_AZURE: Final = frozenset({"TIMESTAMP", "ContextTokens", "GeneratedTokens"})
_MOONCAKE: Final = frozenset({"timestamp", "input_length", "output_length"})
FORMS: Final = (
    Form("Porten's trace", _PORTEN, _PORTEN | {"session", "prefix", "prefix_tokens"}, _porten),
    Form("Azure's trace", _AZURE, _AZURE, _azure),
    Form("Mooncake's trace", _MOONCAKE, _MOONCAKE | {"hash_ids"}, _mooncake),
)
