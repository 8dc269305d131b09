"""Reading what weights files say about themselves. Knows file formats, not where files come from.

The `gguf` package writes the files of our tests, but its reader builds an array for every token of the
vocabulary: seconds for a small model, at a moment when somebody waits for a first token. The scan below skips
what nobody asked for, and checks every length before it believes it.
"""

import os
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import BinaryIO, Final, NamedTuple

from models.errors import FormatUnsupported
from models.gguf_types import BLOCKS, DEFAULT_ALIGNMENT, MAGIC
from models.header import GgufHeader, Pooling

__all__ = ["GgufHeader", "read_gguf_header"]

# llama.cpp's numbers; its 0 is a model that was not trained to embed.
POOLINGS: Final[Mapping[int, Pooling]] = {1: "mean", 2: "cls", 3: "last", 4: "rank"}
SUPPORTED_VERSIONS: Final = (2, 3)
# Longer arrays (the vocabulary) are skipped; per-layer settings are shorter than this.
KEPT_ARRAY_LENGTH: Final = 4096
# More than any real file has: a damaged count must not make us loop for hours, nor fill the memory.
MAX_ENTRIES: Final = 1_000_000
MAX_VALUES: Final = 8_000_000
MAX_HEADER_BYTES: Final = 64 * 1024 * 1024
FIRST_READ_BYTES: Final = 8 * 1024 * 1024
MAX_LAYERS: Final = 10_000
MAX_DIMENSIONS: Final = 8
# llama.cpp's own knowledge, which these architectures' files do not carry: of how many layers in a row the
# last one sees everything while the others look back one window.
SLIDING_PATTERNS: Final = {"cohere2": 4, "gemma2": 2, "gemma3": 6, "gpt-oss": 2}

_STRING, _ARRAY = 8, 9
# GGUF's value types by number, in struct's letters.
_SCALARS: Final = {
    0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d",
}  # fmt: skip


class Skipped(NamedTuple):
    """An array that nobody needs the elements of."""

    length: int


Number = int | float | bool
Value = Number | str | list[Number] | Skipped


class _Malformed(Exception):
    """Internal: the bytes are not a readable GGUF file; the reader adds the path."""


def read_gguf_header(path: Path) -> GgufHeader:
    """Read the header of a GGUF file, without its weights. Blocks for milliseconds.

    Raises:
        FormatUnsupported: Not a GGUF file, damaged or truncated, or of a version we do not know.
    """
    try:
        with path.open("rb") as file:
            return _read(file)
    except (_Malformed, ValueError) as error:
        raise FormatUnsupported(path, f"not a usable GGUF file: {error}") from error
    except OSError as error:
        raise FormatUnsupported(path, f"cannot be read: {error.strerror}") from error


class _MoreNeeded(Exception):
    """Internal: the header goes on beyond what was read of the file."""


def _read(file: BinaryIO) -> GgufHeader:
    """Read as much of the file as its header takes, and no more than `MAX_HEADER_BYTES`.

    Not mapped: reading a mapped file that somebody cuts short meanwhile kills the process.
    """
    size, read = os.fstat(file.fileno()).st_size, b""
    while True:
        read += file.read(len(read) or FIRST_READ_BYTES)
        try:
            return _header(_Scan(read, size))
        except _MoreNeeded:
            if len(read) >= min(size, MAX_HEADER_BYTES):
                raise _Malformed("it ends in the middle of its header") from None


class _Scan:
    """A cursor over the file's first bytes; every read is bounded by their end."""

    def __init__(self, data: bytes, size: int) -> None:
        self._data = data
        self._at = 0
        self._looked_at = 0
        self.size = size

    @property
    def at(self) -> int:
        return self._at

    def skip(self, count: int) -> int:
        """Move on by `count` bytes and return where they began."""
        start = self._at
        if count > self.size - start:
            raise _Malformed("it ends in the middle of its header")
        if count > len(self._data) - start:
            raise _MoreNeeded
        self._at = start + count
        return start

    def numbers(self, letter: str, count: int = 1) -> tuple[Number, ...]:
        self._note(count)
        layout = struct.Struct(f"<{count}{letter}")
        return layout.unpack_from(self._data, self.skip(layout.size))

    def _note(self, count: int) -> None:
        """Take note of so many numbers or texts that are about to be looked at one by one."""
        self._looked_at += count
        if self._looked_at > MAX_VALUES:
            raise _Malformed("it has more values than any header needs")

    def unsigned(self, letter: str = "Q") -> int:
        return int(self.numbers(letter)[0])

    def count(self) -> int:
        found = self.unsigned()
        if found > MAX_ENTRIES:
            raise _Malformed(f"it claims {found} entries")
        return found

    def dimensions(self) -> int:
        found = self.unsigned("I")
        if found > MAX_DIMENSIONS:
            raise _Malformed(f"it has a tensor of {found} dimensions")
        return found

    def text(self) -> str:
        length = self.unsigned()
        start = self.skip(length)
        return self._data[start : start + length].decode("utf-8", "replace")

    def value(self) -> Value:
        kind = self.unsigned("I")
        if kind == _STRING:
            return self.text()
        if kind == _ARRAY:
            return self._array()
        return self.numbers(_letter(kind))[0]

    def _array(self) -> list[Number] | Skipped:
        kind, length = self.unsigned("I"), self.unsigned()
        if kind == _STRING:
            self._skip_texts(length)
            return Skipped(length)
        letter = _letter(kind)
        if length <= KEPT_ARRAY_LENGTH:
            return list(self.numbers(letter, length))
        self.skip(length * struct.calcsize(f"<{letter}"))
        return Skipped(length)

    def _skip_texts(self, count: int) -> None:
        self._note(count)
        # The hot loop: hundreds of thousands of short strings, so no call per string but one.
        read, data, at = struct.Struct("<Q").unpack_from, self._data, self._at
        try:
            for _ in range(count):
                at += 8 + read(data, at)[0]
        except (struct.error, OverflowError):  # past the end, or further than an offset can say
            at = len(self._data) + 1
        self.skip(at - self._at)


def _letter(kind: int) -> str:
    try:
        return _SCALARS[kind]
    except KeyError:
        raise _Malformed(f"it has a value of unknown type {kind}") from None


def _header(scan: _Scan) -> GgufHeader:
    if scan.unsigned("I") != MAGIC:
        raise _Malformed("it does not begin with GGUF")
    version = scan.unsigned("I")
    if version not in SUPPORTED_VERSIONS:
        raise _Malformed(f"its version is {version}, not one of {SUPPORTED_VERSIONS}")
    tensors, entries = scan.count(), scan.count()
    fields: dict[str, Value] = {}
    for _ in range(entries):
        key = scan.text()
        if key in fields:  # readers differ in which they believe
            raise _Malformed(f"it says {key[:100]!r} twice")
        fields[key] = scan.value()
    return _describe(fields, *_tensors(scan, tensors, fields))


def _tensors(scan: _Scan, count: int, fields: Mapping[str, Value]) -> tuple[int, int]:
    """Add up the tensors' bytes and elements, and make sure that the file holds them all."""
    total = end = parameters = 0
    for _ in range(count):
        scan.text()
        elements = 1
        for length in scan.numbers("Q", scan.dimensions()):
            elements *= int(length)
        size, offset = _bytes_of(elements, scan.unsigned("I")), scan.unsigned()
        total, end, parameters = total + size, max(end, offset + size), parameters + elements
    alignment = _integer(fields, "general.alignment", DEFAULT_ALIGNMENT) or DEFAULT_ALIGNMENT
    start = -(-scan.at // alignment) * alignment
    if count and start + end > scan.size:
        raise _Malformed(f"it has {scan.size} bytes, its tensors need {start + end}: truncated?")
    return total, parameters


def _bytes_of(elements: int, kind: int) -> int:
    """Return the bytes that many numbers of one of ggml's types take."""
    if kind not in BLOCKS:
        raise _Malformed(f"it has tensors of unknown type {kind}")
    block, size = BLOCKS[kind]
    return elements * size // block


def _describe(fields: Mapping[str, Value], tensor_bytes: int, parameters: int) -> GgufHeader:
    architecture = str(fields.get("general.architecture", ""))
    if not architecture:
        raise _Malformed("it does not say its architecture")

    def number(key: str, default: int = 0) -> int:
        return _integer(fields, f"{architecture}.{key}", default)

    layers, heads = number("block_count"), number("attention.head_count")
    if layers > MAX_LAYERS:
        raise _Malformed(f"it claims {layers} layers")
    embedding = number("embedding_length")
    head = embedding // heads if heads else 0
    vocabulary = _integer(fields, "tokenizer.ggml.tokens", 0)
    window = number("attention.sliding_window") or None
    return GgufHeader(
        architecture=architecture,
        name=str(fields.get("general.name", "")),
        context_length=number("context_length"),
        layers=layers,
        embedding_length=embedding,
        feed_forward_length=number("feed_forward_length"),
        vocabulary_size=number("vocab_size", vocabulary),
        heads=heads,
        kv_heads=_kv_heads(fields, architecture, layers, heads),
        key_length=number("attention.key_length", head),
        value_length=number("attention.value_length", head),
        sliding_window=window,
        sliding_layers=_sliding(fields, architecture, layers) if window else (False,) * layers,
        file_type=_integer(fields, "general.file_type", 0) if "general.file_type" in fields else None,
        pooling=POOLINGS.get(number("pooling_type")),
        causal=fields.get(f"{architecture}.attention.causal") not in (False, 0),
        tensor_bytes=tensor_bytes,
        parameters=parameters,
        has_chat_template="tokenizer.chat_template" in fields,
    )


def _integer(fields: Mapping[str, Value], key: str, default: int) -> int:
    """Return a number: of a per-layer list the largest (the safe side), of a skipped array its length."""
    value = fields.get(key, default)
    if isinstance(value, Skipped):
        return value.length
    numbers = value if isinstance(value, list) else [value]
    whole = [number for number in numbers if isinstance(number, int) and number >= 0]
    if len(whole) < len(numbers):
        raise _Malformed(f"`{key}` is not a whole number")
    return int(max(whole, default=default))


def _kv_heads(fields: Mapping[str, Value], architecture: str, layers: int, heads: int) -> tuple[int, ...]:
    key = f"{architecture}.attention.head_count_kv"
    largest, found = _integer(fields, key, heads), fields.get(key)
    if isinstance(found, list) and len(found) == layers:
        return tuple(int(count) for count in found)
    return (largest,) * layers


def _sliding(fields: Mapping[str, Value], architecture: str, layers: int) -> tuple[bool, ...]:
    """Which layers slide; none where nobody says, which estimates too much rather than too little."""
    found = fields.get(f"{architecture}.attention.sliding_window_pattern")
    if isinstance(found, list) and len(found) == layers:
        return tuple(bool(slides) for slides in found)
    pattern = found if isinstance(found, int) else SLIDING_PATTERNS.get(architecture, 0)
    return tuple(pattern > 0 and layer % pattern < pattern - 1 for layer in range(layers))
