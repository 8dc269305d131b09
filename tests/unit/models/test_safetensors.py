import contextlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from models.errors import FormatUnsupported
from models.fit import estimate
from models.header import GgufHeader
from models.safetensors import INDEX, read_safetensors_header

Write = Callable[..., Path]
WILD = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=8,
)


def test_says_what_the_config_and_the_files_say(write_safetensors: Write) -> None:
    header = read_safetensors_header(write_safetensors())
    assert (header.architecture, header.context_length, header.vocabulary_size) == ("llama", 256, 100)
    assert (header.layers, header.heads, header.kv_heads) == (4, 4, (2, 2, 2, 2))
    assert (header.key_length, header.value_length, header.embedding_length) == (16, 16, 64)
    assert header.parameters == 100 * 64 + 8 * 32
    assert header.tensor_bytes == 100 * 64 * 2 + 8 * 32 * 4
    assert (header.dtype, header.quantisation) == ("BF16", None)
    assert (header.sliding_window, header.sliding_layers) == (None, (False,) * 4)
    assert not header.has_chat_template


def test_a_chat_template_is_found_where_it_may_lie(write_safetensors: Write) -> None:
    folder = write_safetensors()
    (folder / "tokenizer_config.json").write_text('{"chat_template": "x"}')
    assert read_safetensors_header(folder).has_chat_template
    (folder / "tokenizer_config.json").unlink()
    (folder / "chat_template.jinja").write_text("x")
    assert read_safetensors_header(folder).has_chat_template


def test_the_index_says_which_files_hold_the_weights(write_safetensors: Write) -> None:
    folder = write_safetensors()
    (folder / "unused.safetensors").write_bytes(b"no header at all")
    (folder / INDEX).write_text(json.dumps({"weight_map": {"embed": "model.safetensors"}}))
    assert read_safetensors_header(folder).parameters == 100 * 64 + 8 * 32
    (folder / INDEX).write_text(json.dumps({"weight_map": {"embed": "model-00002-of-00002.safetensors"}}))
    with pytest.raises(FormatUnsupported, match="missing"):
        read_safetensors_header(folder)


@pytest.mark.parametrize(
    ("changes", "window", "slides"),
    [
        ({"sliding_window": 128}, 128, (True,) * 4),
        ({"sliding_window": 128, "use_sliding_window": False}, None, (False,) * 4),
        ({"sliding_window": 128, "max_window_layers": 2}, 128, (False, False, True, True)),
        ({"sliding_window": 128, "sliding_window_pattern": 2}, 128, (True, False, True, False)),
        (
            {
                "sliding_window": 128,
                "layer_types": ["full_attention", "sliding_attention", "full_attention", "full_attention"],
            },
            128,
            (False, True, False, False),
        ),
    ],
)
def test_sliding_layers_are_known(
    write_safetensors: Write, changes: dict[str, Any], window: int | None, slides: tuple[bool, ...]
) -> None:
    header = read_safetensors_header(write_safetensors(config=changes))
    assert (header.sliding_window, header.sliding_layers) == (window, slides)


def test_layers_that_keep_no_cache_have_no_heads(write_safetensors: Write) -> None:
    kinds = ["linear_attention", "linear_attention", "linear_attention", "full_attention"]
    header = read_safetensors_header(write_safetensors(config={"layer_types": kinds}))
    assert header.kv_heads == (0, 0, 0, 2)


def test_the_text_part_of_a_model_that_sees_counts(write_safetensors: Write) -> None:
    folder = write_safetensors(config={"text_config": {"num_hidden_layers": 2, "head_dim": 32}})
    header = read_safetensors_header(folder)
    assert (header.layers, header.key_length) == (2, 32)


def test_the_same_shape_costs_the_same_memory_in_either_format(
    write_safetensors: Write, header: Callable[..., GgufHeader]
) -> None:
    found = read_safetensors_header(write_safetensors(config={"sliding_window": 100}))
    same = header(
        layers=4,
        heads=4,
        kv_heads=(2,) * 4,
        key_length=16,
        value_length=16,
        embedding_length=64,
        feed_forward_length=128,
        vocabulary_size=100,
        sliding_window=100,
        sliding_layers=(True,) * 4,
    )
    shape = {"size_bytes": 1000, "context": 4096, "slots": 3}
    assert estimate(found, **shape) == estimate(same, **shape)
    assert estimate(found, **shape).kv_cache == 4 * 2 * 32 * 2 * (512 + 4 * 100) * 3


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("config.json", None, "no config.json"),
        ("config.json", b"[]", "not an object"),
        ("config.json", b"[" * 100_000, "cannot be understood"),
        ("config.json", b'{"num_hidden_layers": true}', "num_hidden_layers"),
        ("config.json", b"\xff", "cannot be understood"),
        ("config.json", b'{"a": ' * 50_000, "cannot be understood"),
        ("config.json", b'{"a": 1, "a": 2}', "twice"),
        ("config.json", b'{"num_hidden_layers": NaN}', "num_hidden_layers"),
        ("config.json", b'{"num_hidden_layers": 1e999}', "num_hidden_layers"),
        ("config.json", b'{"num_hidden_layers": ' + b"9" * 5000 + b"}", "cannot be understood"),
        ("config.json", b'{"num_hidden_layers": 9999999999999999999}', "num_hidden_layers"),
        ("model.safetensors", (24).to_bytes(8, "little") + b'{"a": {}, "a": {"b": {}}}'[:24], "understood"),
        ("model.safetensors", (18).to_bytes(8, "little") + b'{"a": {}, "a": {}}', "twice"),
        (
            INDEX,
            json.dumps({"weight_map": {str(n): f"{n}.safetensors" for n in range(5000)}}).encode(),
            "5000",
        ),
        ("model.safetensors", None, "no .safetensors"),
        ("model.safetensors", b"", "middle of its header"),
        ("model.safetensors", (2**63).to_bytes(8, "little") + b"{}", "middle of its header"),
        ("model.safetensors", (100).to_bytes(8, "little") + b"{}", "middle of its header"),
        (INDEX, b'{"weight_map": {"a": "../x.safetensors"}}', "not a file of the folder"),
        (INDEX, b'{"weight_map": {"a": "/etc/x.safetensors"}}', "not a file of the folder"),
        (INDEX, b'{"weight_map": {"a": ["x"]}}', "not a file of the folder"),
        (INDEX, b'{"weight_map": []}', "no weight map"),
        ("tokenizer_config.json", b"7", "not an object"),
    ],
)
def test_damage_is_named(write_safetensors: Write, name: str, content: bytes | None, says: str) -> None:
    folder = write_safetensors()
    (folder / name).unlink() if content is None else (folder / name).write_bytes(content)
    with pytest.raises(FormatUnsupported, match=says):
        read_safetensors_header(folder)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"dtype": "F17"}, "no usable type"),
        ({"shape": [2**70]}, "no usable type"),
        ({"shape": [1, -1]}, "no usable type"),
        ({"shape": [True]}, "no usable type"),
        ({"data_offsets": [0]}, "no usable type"),
        ({"data_offsets": [0, 2**39]}, "beyond the end"),
        ({"data_offsets": [8, 4]}, "beyond the end"),
        ({"shape": [3]}, "not as large as its shape"),
        ({"shape": [2**39] * 16}, "not as large as its shape"),
    ],
)
def test_a_tensor_must_lie_in_its_file(write_safetensors: Write, changes: dict[str, Any], says: str) -> None:
    tensor = {"dtype": "U8", "shape": [4], "data_offsets": [0, 4], **changes}
    folder = write_safetensors(tensors={"only": tensor}, data=b"1234")
    with pytest.raises(FormatUnsupported, match=says):
        read_safetensors_header(folder)


def test_more_layers_than_any_model_has_are_refused(write_safetensors: Write) -> None:
    with pytest.raises(FormatUnsupported, match="layers"):
        read_safetensors_header(write_safetensors(config={"num_hidden_layers": 10**9}))


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_damaged_bytes_never_raise_anything_else(write_safetensors: Write, data: st.DataObject) -> None:
    folder = write_safetensors()
    name = data.draw(st.sampled_from(["model.safetensors", "config.json"]))
    whole = (folder / name).read_bytes()
    damaged = bytearray(whole[: data.draw(st.integers(0, len(whole)))])
    for _ in range(data.draw(st.integers(0, 4)) if damaged else 0):
        damaged[data.draw(st.integers(0, min(len(damaged), 400) - 1))] = data.draw(st.integers(0, 255))
    (folder / name).write_bytes(damaged)
    with contextlib.suppress(FormatUnsupported):
        read_safetensors_header(folder)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    key=st.sampled_from(
        [
            "num_hidden_layers",
            "layer_types",
            "sliding_window",
            "text_config",
            "head_dim",
            "quantization_config",
            "num_key_value_heads",
            "max_window_layers",
            "sliding_window_pattern",
            "use_sliding_window",
        ]
    ),
    value=WILD,
    tensors=st.dictionaries(st.sampled_from(["a", "__metadata__"]), WILD, max_size=2),
    index=st.none() | WILD,
)
def test_values_of_any_type_never_raise_anything_else(
    write_safetensors: Write, key: str, value: Any, tensors: dict[str, Any], index: Any
) -> None:
    folder = write_safetensors(config={"sliding_window": 8, key: value}, tensors=tensors)
    (folder / INDEX).unlink(missing_ok=True)
    if index is not None:
        (folder / INDEX).write_text(json.dumps({"weight_map": index}))
    with contextlib.suppress(FormatUnsupported):
        found = read_safetensors_header(folder)
        assert len(found.kv_heads) == len(found.sliding_layers) == found.layers
        assert estimate(found, size_bytes=1, context=100, slots=1).total > 0
