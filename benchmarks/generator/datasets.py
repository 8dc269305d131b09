"""Requests out of a file of real conversations, drawn by the seed. What they say never leaves the process.

Two forms are known, told apart by the file's first character:

- **ShareGPT's JSON**: a list of ``{"conversations": [{"from": "human", "value": ...}, ...]}``; ``human``
  and ``gpt`` take turns.
- **JSONL**: an object a line with ``prompt``, or with ``messages`` as the chat API has them, and optionally
  with ``output_tokens``.

There is no tokenizer here, which would be heavy and another model's anyway: how long an answer may be is
taken from the answer in the file at four bytes a token, the usual rule of thumb for English. Only
``max_tokens`` hangs on it; what is reported are the server's counts.
"""

import codecs
import hashlib
import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Final

import msgspec

from benchmarks.errors import InputInvalid
from benchmarks.generator.pauses import NO_PAUSE, Pause
from benchmarks.generator.words import chance
from benchmarks.generator.workloads import (
    MOST_TOKENS,
    ONE,
    WARMUP_INDEX,
    Distribution,
    Fixed,
    Message,
    Request,
    told,
)

BYTES_A_TOKEN: Final = 4
_LENGTH: Final = Fixed(64)
_USERS: Final = frozenset({"human", "user"})
_ASSISTANTS: Final = frozenset({"gpt", "assistant", "chatgpt", "bing", "bard", "model"})


@dataclass(frozen=True, slots=True)
class Turn:
    """What the user says, and how long the answer to it was, as far as the file tells."""

    prompt: str = field(repr=False)
    output_tokens: int | None = None


@dataclass(frozen=True, slots=True)
class Conversation:
    """One conversation of the file: what stands before its first turn, and the user's turns."""

    turns: tuple[Turn, ...]
    history: tuple[Message, ...] = field(default=(), repr=False)


@dataclass(frozen=True)
class Dataset:
    """A source of requests from a file's conversations.

    Each is asked once, in an order by chance; then they begin anew. The warm-up takes them from that order's
    end.

    Attributes:
        name: the file's name.
        digest: SHA-256 of the file.
        turns: so many turns of a conversation are asked at most, the real answers in between.
        output_tokens: instead of what the file says; where that says nothing, `otherwise` holds.
    """

    name: str
    digest: str
    conversations: tuple[Conversation, ...] = field(repr=False)
    seed: int = 0
    turns: Distribution = ONE
    think: Pause = NO_PAUSE
    output_tokens: Distribution | None = None
    otherwise: Distribution = _LENGTH

    def request(self, index: int) -> Request:
        """The first request of the conversation with that number."""
        return self._turn(index, 0, self._conversation(index).history)

    def turns_of(self, index: int) -> int:
        """How many turns of it are asked."""
        return min(len(self._conversation(index).turns), self.turns.draw(chance(self.seed, "turns", index)))

    def __len__(self) -> int:
        """How many requests can be made of it before one comes again, with the turns that are asked."""
        return sum(self.turns_of(index) for index in range(len(self.conversations)))

    def as_settings(self) -> dict[str, object]:
        """Which file it was, and what was taken from it."""
        return {
            "dataset": self.name,
            "sha256": self.digest,
            "conversations": len(self.conversations),
            "turns": str(self.turns),
            "think_time": str(self.think),
            "output_tokens": "of the dataset" if self.output_tokens is None else str(self.output_tokens),
            "seed": self.seed,
        }

    @cached_property
    def _order(self) -> Sequence[int]:
        order = list(range(len(self.conversations)))
        random.Random(f"{self.seed}/dataset").shuffle(order)  # noqa: S311 - repeatable on purpose
        return order

    def _conversation(self, index: int) -> Conversation:
        place = index if index < WARMUP_INDEX else WARMUP_INDEX - 1 - index
        return self.conversations[self._order[place % len(self._order)]]

    def _turn(self, index: int, turn: int, history: tuple[Message, ...]) -> Request:
        asked = self._conversation(index).turns[turn]
        tokens = self._tokens(asked, f"{index}/{turn}")
        request = Request(index, asked.prompt, tokens_of(asked.prompt), tokens, history, private=True)
        if turn + 1 >= self.turns_of(index):
            return request
        think_s = self.think.draw(chance(self.seed, "think", f"{index}/{turn}"))

        def following(answer: str) -> Request:
            return self._turn(index, turn + 1, told(request, answer))

        return replace(request, said=[], following=following, think_s=think_s)

    def _tokens(self, asked: Turn, place: str) -> int:
        wanted = self.output_tokens
        if wanted is None:
            if asked.output_tokens is not None:
                return asked.output_tokens
            wanted = self.otherwise
        return wanted.draw(chance(self.seed, "lengths", place))


def tokens_of(text: str) -> int:
    """About how many tokens a text has; at least 1."""
    return max(1, round(len(text.encode(errors="replace")) / BYTES_A_TOKEN))


def read_dataset(path: Path, **settings: Any) -> Dataset:
    """Read a file of either form.

    Args:
        path: the file.
        settings: what else `Dataset` has: seed, turns, think, output_tokens.

    Raises:
        InputInvalid: it cannot be read, or holds no conversation; no message repeats what it says.
    """
    name = path.name
    try:
        data = path.read_bytes()
    except OSError as error:
        raise InputInvalid(name, 0, f"cannot be read: {error.strerror}") from error
    data = data.removeprefix(codecs.BOM_UTF8)
    found = _share_gpt(name, data) if data.lstrip()[:1] == b"[" else _json_lines(name, data)
    conversations = tuple(found)
    if not conversations:
        raise InputInvalid(name, 0, "it holds no conversation that a user begins")
    return Dataset(name, hashlib.sha256(data).hexdigest(), conversations, **settings)


class _Said(msgspec.Struct):
    speaker: str = msgspec.field(name="from")
    value: str


class _Shared(msgspec.Struct):
    conversations: list[_Said] = []


def _share_gpt(name: str, data: bytes) -> Iterable[Conversation]:
    try:
        entries = msgspec.json.decode(data, type=list[_Shared])
    except msgspec.DecodeError as error:
        raise InputInvalid(name, 0, f"it is no list of ShareGPT's conversations: {_place(error)}") from error
    return [found for entry in entries if (found := _of_shared(entry)) is not None]


def _of_shared(entry: _Shared) -> Conversation | None:
    """The conversation as far as the two take turns; none where no user begins it."""
    said = list(entry.conversations)
    history: list[Message] = []
    if said and said[0].speaker == "system":
        history.append(Message("system", said.pop(0).value))
    turns: list[Turn] = []
    for asked, answer in zip(said[::2], [*said[1::2], None], strict=False):
        if asked.speaker not in _USERS or not asked.value.strip():
            break
        if answer is None or answer.speaker not in _ASSISTANTS:
            turns.append(Turn(asked.value))
            break
        turns.append(Turn(asked.value, tokens_of(answer.value)))
    return Conversation(tuple(turns), tuple(history)) if turns else None


class _Line(msgspec.Struct):
    prompt: str | None = None
    messages: list[Message] | None = None
    output_tokens: int | None = None


def _json_lines(name: str, data: bytes) -> Iterable[Conversation]:
    for number, line in enumerate(data.splitlines(), 1):
        if not line.strip():
            continue
        try:
            yield _of_line(msgspec.json.decode(line, type=_Line))
        except msgspec.DecodeError as error:
            raise InputInvalid(name, number, f"it is not what is expected: {_place(error)}") from error
        except ValueError as error:
            raise InputInvalid(name, number, str(error)) from error


def _of_line(line: _Line) -> Conversation:
    if line.output_tokens is not None and not 1 <= line.output_tokens <= MOST_TOKENS:
        raise ValueError(f"output_tokens is below 1 or above {MOST_TOKENS}")
    if (line.prompt is None) == (line.messages is None):
        raise ValueError("it must have either prompt or messages")
    if line.messages is None:
        return Conversation((Turn(line.prompt or " ", line.output_tokens),))
    if not line.messages or line.messages[-1].role != "user":
        raise ValueError("its last message is not the user's")
    turn = Turn(line.messages[-1].content, line.output_tokens)
    return Conversation((turn,), tuple(line.messages[:-1]))


def _place(error: msgspec.DecodeError) -> str:
    # msgspec names types and places (`$[3].value`), never values.
    return str(error) if isinstance(error, msgspec.ValidationError) else "it is no JSON"
