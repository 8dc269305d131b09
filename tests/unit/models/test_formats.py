import contextlib
import math
import os
import struct
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import gguf
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from models.errors import FormatUnsupported
from models.formats import FIRST_READ_BYTES, MAX_HEADER_BYTES, read_gguf_header
from models.gguf_types import BLOCKS, DEFAULT_ALIGNMENT, MAGIC

Write = Callable[..., Path]


def test_types_are_as_large_as_the_gguf_package_says() -> None:
    assert {kind.value: sizes for kind, sizes in gguf.GGML_QUANT_SIZES.items()} == BLOCKS
    assert (MAGIC, DEFAULT_ALIGNMENT) == (gguf.GGUF_MAGIC, gguf.GGUF_DEFAULT_ALIGNMENT)


def test_says_what_the_gguf_package_wrote(write_gguf: Write) -> None:
    path = write_gguf()
    header = read_gguf_header(path)
    reader = gguf.GGUFReader(path)
    assert (header.architecture, header.name) == ("llama", "Tiny")
    assert (header.context_length, header.layers, header.embedding_length) == (256, 4, 64)
    assert (header.heads, header.kv_heads) == (4, (2, 2, 2, 2))
    assert (header.key_length, header.value_length) == (16, 16)
    assert header.feed_forward_length == 128
    assert header.vocabulary_size == 5000
    assert header.file_type == 1
    assert header.has_chat_template
    assert header.tensor_bytes == sum(int(tensor.n_bytes) for tensor in reader.tensors)
    assert header.parameters == sum(int(tensor.n_elements) for tensor in reader.tensors)


def test_a_stated_head_length_wins_over_the_computed_one(write_gguf: Write) -> None:
    header = read_gguf_header(write_gguf(extra={"attention.key_length": 32, "attention.value_length": 24}))
    assert (header.key_length, header.value_length) == (32, 24)


def test_a_stated_vocabulary_size_wins_over_the_token_list(write_gguf: Write) -> None:
    assert read_gguf_header(write_gguf(extra={"vocab_size": 49152})).vocabulary_size == 49152


@pytest.mark.parametrize(
    ("extra", "pooling"),
    [({}, None), ({"pooling_type": 0}, None), ({"pooling_type": 1}, "mean"), ({"pooling_type": 99}, None)],
)
def test_says_how_the_model_was_trained_to_embed(
    write_gguf: Write, extra: dict[str, int], pooling: str | None
) -> None:
    assert read_gguf_header(write_gguf(extra=extra)).pooling == pooling


def test_heads_may_differ_from_layer_to_layer(write_gguf: Write) -> None:
    assert read_gguf_header(write_gguf(kv_heads=[2, 0, 4, 0])).kv_heads == (2, 0, 4, 0)


@pytest.mark.parametrize(
    ("architecture", "extra", "slides"),
    [
        ("llama", {}, (False,) * 4),
        ("gemma2", {"attention.sliding_window": 128}, (True, False, True, False)),
        (
            "unheard-of",
            {"attention.sliding_window": 128, "attention.sliding_window_pattern": 4},
            (True, True, True, False),
        ),
        (
            "unheard-of",
            {"attention.sliding_window": 128, "attention.sliding_window_pattern": [True, False, False, True]},
            (True, False, False, True),
        ),
        ("unheard-of", {"attention.sliding_window": 128}, (False,) * 4),
        ("gemma2", {}, (False,) * 4),
    ],
)
def test_layers_slide_where_the_file_or_llama_cpp_says_so(
    write_gguf: Write, architecture: str, extra: dict[str, object], slides: tuple[bool, ...]
) -> None:
    assert read_gguf_header(write_gguf(architecture=architecture, extra=extra)).sliding_layers == slides


@pytest.mark.parametrize("content", [b"", b"GGUF", b"PK\x03\x04" * 100, b"GGUF\x63\x00\x00\x00" + b"\0" * 64])
def test_anything_else_is_refused_by_name(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "weights.gguf"
    path.write_bytes(content)
    with pytest.raises(FormatUnsupported, match=r"weights\.gguf"):
        read_gguf_header(path)


def test_a_missing_file_and_a_folder_are_refused(tmp_path: Path) -> None:
    for path in (tmp_path / "absent", tmp_path):
        with pytest.raises(FormatUnsupported, match="cannot be read"):
            read_gguf_header(path)


def test_missing_weights_at_the_end_are_noticed(write_gguf: Write) -> None:
    path = write_gguf()
    path.write_bytes(path.read_bytes()[:-64])
    with pytest.raises(FormatUnsupported, match="truncated"):
        read_gguf_header(path)


def test_no_architecture_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "empty.gguf"
    path.write_bytes(b"GGUF" + (3).to_bytes(4, "little") + bytes(16))
    with pytest.raises(FormatUnsupported, match="architecture"):
        read_gguf_header(path)


@pytest.fixture
def whole(write_gguf: Write) -> bytes:
    return write_gguf(tokens=20).read_bytes()


def test_a_text_longer_than_memory_can_be_is_damage(whole: bytes, tmp_path: Path) -> None:
    path = tmp_path / "damaged.gguf"
    first_token = whole.index(b"token0") - 8
    path.write_bytes(whole[:first_token] + (2**63).to_bytes(8, "little") + whole[first_token + 8 :])
    with pytest.raises(FormatUnsupported, match="middle of its header"):
        read_gguf_header(path)


def gguf_bytes(*entries: bytes, tensors: int = 0, count: int | None = None) -> bytes:
    """A header by hand: what no writer would write."""
    counts = struct.pack("<QQ", tensors, len(entries) if count is None else count)
    return b"GGUF" + struct.pack("<I", 3) + counts + b"".join(entries)


def entry(key: bytes, kind: int, value: bytes) -> bytes:
    return struct.pack("<Q", len(key)) + key + struct.pack("<I", kind) + value


ARCHITECTURE = entry(b"general.architecture", 8, struct.pack("<Q", 5) + b"llama")
MALICIOUS = {
    "a key said twice": (gguf_bytes(ARCHITECTURE, ARCHITECTURE), "twice"),
    "arrays in arrays": (gguf_bytes(entry(b"a", 9, struct.pack("<IQ", 9, 1) * 1000)), "unknown type 9"),
    "numbers without end": (
        gguf_bytes(*(entry(b"%d" % n, 9, struct.pack("<IQ", 0, 4096) + bytes(4096)) for n in range(2100))),
        "more values",
    ),
    "texts without end": (
        gguf_bytes(entry(b"a", 9, struct.pack("<IQ", 8, 2**40) + bytes(1000))), "more values"
    ),
    "more entries than any file": (gguf_bytes(count=2**40), "claims"),
    "a number that is none": (
        gguf_bytes(ARCHITECTURE, entry(b"llama.block_count", 12, struct.pack("<d", math.nan))),
        "not a whole number",
    ),
    "a huge count of layers": (
        gguf_bytes(ARCHITECTURE, entry(b"llama.block_count", 10, struct.pack("<Q", 2**64 - 1))), "layers"
    ),
    "a negative length": (
        gguf_bytes(ARCHITECTURE, entry(b"llama.embedding_length", 5, struct.pack("<i", -7))), "whole number"
    ),
    "a tensor of more bytes than numbers can say": (
        gguf_bytes(ARCHITECTURE, tensors=1)
        + struct.pack("<Q", 1) + b"t" + struct.pack("<I8QIQ", 8, *[2**64 - 1] * 8, 0, 2**64 - 1),
        "truncated",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", MALICIOUS)
def test_what_is_made_to_harm_is_refused_in_little_time_and_memory(tmp_path: Path, name: str) -> None:
    content, says = MALICIOUS[name]
    path = tmp_path / "malicious.gguf"
    path.write_bytes(content)
    tracemalloc.start()
    began = time.process_time()
    with pytest.raises(FormatUnsupported, match=says):
        read_gguf_header(path)
    spent, (_, most) = time.process_time() - began, tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert spent < 10
    assert most < 500e6


@pytest.mark.parametrize(
    ("first", "says"),
    [
        pytest.param(entry(b"a", 9, struct.pack("<IQ", 8, 2**29 - 100)), "more values", id="empty texts"),
        pytest.param(entry(b"a", 8, struct.pack("<Q", 2**31)), "middle of its header", id="one long text"),
    ],
)
def test_a_huge_file_is_not_read_beyond_what_a_header_may_take(
    tmp_path: Path, first: bytes, says: str
) -> None:
    """Four gigabytes, none of which is on the disk."""
    path = tmp_path / "sparse.gguf"
    path.write_bytes(gguf_bytes(first))
    os.truncate(path, 1 << 32)
    tracemalloc.start()
    with pytest.raises(FormatUnsupported, match=says):
        read_gguf_header(path)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < 3 * MAX_HEADER_BYTES


def test_a_header_longer_than_the_first_read_is_read(write_gguf: Write) -> None:
    path = write_gguf(tokens=600_000)
    assert path.stat().st_size > FIRST_READ_BYTES
    assert read_gguf_header(path).vocabulary_size == 600_000


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_damage_never_raises_anything_else(whole: bytes, tmp_path: Path, data: st.DataObject) -> None:
    damaged = bytearray(whole[: data.draw(st.integers(0, len(whole)))])
    for _ in range(data.draw(st.integers(0, 4)) if damaged else 0):
        # Most damage goes where the structure is: the first kilobyte.
        at = data.draw(st.integers(0, min(len(damaged), 1000) - 1))
        damaged[at] = data.draw(st.integers(0, 255))
    path = tmp_path / "damaged.gguf"
    path.write_bytes(damaged)
    with contextlib.suppress(FormatUnsupported):
        read_gguf_header(path)
