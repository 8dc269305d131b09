import contextlib
from collections.abc import Callable
from pathlib import Path

import gguf
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from models.errors import FormatUnsupported
from models.formats import read_gguf_header

Write = Callable[..., Path]


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
