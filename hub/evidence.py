"""The steps behind ``porten-hub receipts`` and ``audit``: checks that need nothing but a public key.

Owns reading what people have at hand (headers, streams, key files, exports) and the export's form. Must not
know the terminal or storage.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from hub.audit import ChainCheck, Checkpoint, Event, Finding, Problem
from hub.checkpoints import read_checkpoint, says_checkpoint
from hub.errors import CheckpointInvalid, InvalidInput
from tunnel.errors import CredentialInvalid, ReceiptInvalid
from tunnel.identity import decode_public_key, encode_public_key
from tunnel.receipts import RECEIPT_HEADER, ReceiptReader, VerifiedReceipt

EXPORT_FORM = "porten-audit.v1"

_MARKED = re.compile(rf"^(?:{RECEIPT_HEADER}:|: {RECEIPT_HEADER} )\s*(\S+)\s*$", re.IGNORECASE)
_TOKEN = re.compile(r"[A-Za-z0-9_-]+(?:\.[A-Za-z0-9_-]+){2}")


@dataclass(frozen=True, slots=True)
class Verdict:
    """What came of one receipt: it holds, or why not."""

    token: str
    verified: VerifiedReceipt | None
    reason: str | None


def receipts_in(text: str) -> list[str]:
    """The receipts in a text: headers as ``curl -i`` shows them, a stream's comments, or one a line.

    Raises:
        InvalidInput: there is none.
    """
    lines = [line.rstrip("\r") for line in text.split("\n")]
    marked = [match[1] for line in lines if (match := _MARKED.match(line))]
    found = marked or [line.strip() for line in lines if line.strip()]
    if not found:
        raise InvalidInput("receipts", f"there is none: give {RECEIPT_HEADER} of an answer, one a line")
    return found


def judge(tokens: Iterable[str], keys: Sequence[Ed25519PublicKey]) -> list[Verdict]:
    """Look at each receipt."""
    reader = ReceiptReader(*keys)
    return [_judge(reader, token) for token in tokens]


def _judge(reader: ReceiptReader, token: str) -> Verdict:
    try:
        return Verdict(token, reader.read(token), None)
    except ReceiptInvalid as error:
        return Verdict(token, None, str(error))


def keys_in(text: str) -> list[Ed25519PublicKey]:
    """Hubs' public keys: one a line as ``receipts key`` prints it, or what ``/.well-known/porten`` says.

    Raises:
        InvalidInput: a line is something else, or there is none.
    """
    try:
        document = msgspec.json.decode(text.encode())
    except (msgspec.DecodeError, UnicodeEncodeError):
        document = None
    if isinstance(document, dict) and isinstance(document.get("public_key"), str):
        lines = [document["public_key"]]
    else:
        lines = [line.partition("#")[0].strip() for line in text.splitlines()]
    try:
        keys = [decode_public_key(line) for line in lines if line]
    except CredentialInvalid as error:
        raise InvalidInput("hub-key", f"a line is {error}") from None
    if not keys:
        raise InvalidInput(
            "hub-key", "the file holds no key: put there what `porten-hub receipts key` prints"
        )
    return keys


def checkpoints_in(text: str) -> list[str]:
    """The tokens of checkpoints in a text, such as the Hub's log: whatever says that it is one.

    Raises:
        InvalidInput: there is none.
    """
    found = [token for token in _TOKEN.findall(text) if says_checkpoint(token)]
    if not found:
        raise InvalidInput(
            "checkpoint", "the file holds none: look for event=audit.checkpoint in the Hub's log"
        )
    return found


class LogCheck:
    """A check of an audit log against everything that is signed of it."""

    def __init__(
        self,
        hub_id: str,
        tokens: Iterable[str],
        keys: Sequence[Ed25519PublicKey],
        head: tuple[int, str] | None = None,
    ) -> None:
        """Read the checkpoints.

        Args:
            hub_id: whose log it is; checkpoints of another Hub are findings.
            tokens: the checkpoints.
            keys: that may have signed them.
            head: what the log's own head remembers, see `ChainCheck`.
        """
        self._unreadable: list[Finding] = []
        read = [self._read(token, hub_id, keys) for token in tokens]
        self.checkpoints = {checkpoint for checkpoint in read if checkpoint is not None}
        self._chain = ChainCheck(self.checkpoints, head)
        self.first = self._chain.sequence + 1

    @property
    def events(self) -> int:
        """How many events were looked at."""
        return self._chain.events

    @property
    def sealed(self) -> int:
        """The newest sequence that the Hub has signed, 0 where it has signed none."""
        return max((checkpoint.sequence for checkpoint in self.checkpoints), default=0)

    async def over(
        self, events: AsyncIterator[Event], head_after: Callable[[], Awaitable[int]] | None = None
    ) -> list[Finding]:
        """Look at all of them; what is wrong, in the order in which it was noticed.

        Args:
            events: the whole log.
            head_after: asked for the head's sequence once all were read.
        """
        async for event in events:
            self._chain.take(event)
        head = None if head_after is None else await head_after()
        return [*self._unreadable, *self._chain.finish(head)]

    def _read(self, token: str, hub_id: str, keys: Sequence[Ed25519PublicKey]) -> Checkpoint | None:
        try:
            checkpoint = read_checkpoint(token, *keys)
        except CheckpointInvalid as error:
            self._distrust(str(error))
            return None
        if checkpoint.hub_id != hub_id:
            self._distrust(f"it is of another Hub, {checkpoint.hub_id}")
            return None
        return checkpoint

    def _distrust(self, reason: str) -> None:
        words = f"a checkpoint does not verify: {reason}"
        self._unreadable.append(Finding(Problem.CHECKPOINT, 0, words))


@dataclass(frozen=True, slots=True)
class Export:
    """An audit log as a file has it."""

    hub_id: str
    public_key: str
    checkpoints: tuple[str, ...]
    events: tuple[Event, ...]


def export_head(hub_id: str, key: Ed25519PublicKey, checkpoints: Iterable[str]) -> Iterator[str]:
    """The first lines of an export: whose log it is, and all checkpoints."""
    head = {"kind": "log", "form": EXPORT_FORM, "hub_id": hub_id, "public_key": encode_public_key(key)}
    yield _line(head)
    for token in checkpoints:
        yield _line({"kind": "checkpoint", "token": token})


def export_event(event: Event) -> str:
    """The line of one event, its details as the text that was hashed."""
    return _line({"kind": "event", **asdict(event)})


def export_own_event(event: Event) -> str:
    """The line of one event for those who see its organisation's alone: without its place among everybody's.

    Its hash stays: whoever has the whole log can be held to it.
    """
    hidden = ("sequence", "previous_hash", "batch")
    return _line(
        {"kind": "event"} | {name: value for name, value in asdict(event).items() if name not in hidden}
    )


def read_export(text: str) -> Export:
    """Read an export back.

    Raises:
        InvalidInput: it is something else, or a line of it is damaged.
    """
    lines = [_read_line(number, line) for number, line in enumerate(text.split("\n"), 1) if line.strip()]
    if not lines or lines[0].get("form") != EXPORT_FORM:
        raise InvalidInput("file", f"is no export of an audit log ({EXPORT_FORM})")
    try:
        return Export(
            hub_id=str(lines[0]["hub_id"]),
            public_key=str(lines[0]["public_key"]),
            checkpoints=tuple(str(line["token"]) for line in lines if line["kind"] == "checkpoint"),
            events=tuple(msgspec.convert(line, Event) for line in lines if line["kind"] == "event"),
        )
    except (KeyError, msgspec.ValidationError) as error:
        raise InvalidInput("file", f"is damaged: {error}") from None


def _read_line(number: int, line: str) -> dict[str, Any]:
    try:
        return msgspec.json.decode(line.encode(), type=dict[str, Any])
    except (msgspec.DecodeError, UnicodeEncodeError):
        raise InvalidInput("file", f"line {number} is damaged") from None


def _line(fields: dict[str, Any]) -> str:
    return msgspec.json.encode(fields).decode()
