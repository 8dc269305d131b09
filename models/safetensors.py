"""Reading what a folder of safetensors says about itself: its `config.json` and the header of each file.

Reads no weights. Knows the layout of a folder, not where it came from. Every length is checked before it is
believed, and nothing outside the folder is opened.
"""

import json
import math
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO, Final, TypeGuard

from models.errors import FormatUnsupported
from models.header import SafetensorsHeader

__all__ = ["read_safetensors_header"]

CONFIG: Final = "config.json"
INDEX: Final = "model.safetensors.index.json"
# The format's own bound on one header; of all files of a model together they are far smaller.
MAX_HEADER_BYTES: Final = 100_000_000
MAX_FILES: Final = 4096
MAX_CONFIG_BYTES: Final = 16 * 1024 * 1024
MAX_LAYERS: Final = 10_000
# No real dimension comes near; products of three of them stay small numbers.
MAX_DIMENSION: Final = 1 << 40
MAX_ELEMENTS: Final = 1 << 60
BITS: Final = {
    "F64": 64, "I64": 64, "U64": 64, "F32": 32, "I32": 32, "U32": 32, "F16": 16, "BF16": 16, "I16": 16,
    "U16": 16, "F8_E5M2": 8, "F8_E4M3": 8, "F8_E8M0": 8, "I8": 8, "U8": 8, "BOOL": 8, "F4": 4, "C64": 64,
}  # fmt: skip


class _Malformed(Exception):
    """Internal: the folder is not a readable model; the reader adds the path."""


def read_safetensors_header(folder: Path) -> SafetensorsHeader:
    """Read what a model folder says about itself. Blocks for milliseconds.

    Raises:
        FormatUnsupported: There is no `config.json` or no weights, or one of them is damaged or incomplete.
    """
    try:
        config = _object(folder / CONFIG, MAX_CONFIG_BYTES)
        tensors = _Tensors()
        for path in _weights(folder):
            _read_tensors(path, tensors)
        return _describe(folder, config, tensors)
    except _Malformed as error:
        raise FormatUnsupported(folder, f"not a usable folder of safetensors: {error}") from error
    except OSError as error:
        raise FormatUnsupported(folder, f"cannot be read: {error.strerror}") from error


class _Tensors:
    """What the headers of all files add up to."""

    def __init__(self) -> None:
        self.bytes_by_dtype: Counter[str] = Counter()
        self.parameters = 0
        self.header_bytes = 0


def _weights(folder: Path) -> list[Path]:
    """Return the files that hold the weights: those the index names, or all there are."""
    found = sorted(path for path in folder.glob("*.safetensors") if path.is_file())
    if (folder / INDEX).exists():
        found = [folder / name for name in sorted(_indexed(folder / INDEX))]
    if len(found) > MAX_FILES:
        raise _Malformed(f"it has {len(found)} files of weights")
    if not found:
        raise _Malformed("it has no .safetensors file")
    if missing := [path.name for path in found if not path.is_file()]:
        raise _Malformed(f"{missing[0]!r} is missing")
    return found


def _indexed(path: Path) -> set[str]:
    named = _object(path, MAX_HEADER_BYTES).get("weight_map")
    if not isinstance(named, dict):
        raise _Malformed("its index has no weight map")
    for name in named.values():
        if not isinstance(name, str) or Path(name).name != name or not name.endswith(".safetensors"):
            raise _Malformed(f"its index names {str(name)[:100]!r}, not a file of the folder")
    return set(named.values())


def _read_tensors(path: Path, found: _Tensors) -> None:
    with path.open("rb") as file:
        header, space = _header(file, path)
        found.header_bytes += file.tell()
    if found.header_bytes > MAX_HEADER_BYTES:
        raise _Malformed("its headers are too large")
    for name, tensor in header.items():
        if name != "__metadata__":
            dtype, elements, size = _tensor(name, tensor, space)
            found.bytes_by_dtype[dtype] += size
            found.parameters += elements


def _header(file: BinaryIO, path: Path) -> tuple[dict[str, Any], int]:
    """Return a file's header, and how many bytes of tensors follow it."""
    size = path.stat().st_size
    length = int.from_bytes(file.read(8), "little")
    if size < 8 or length > min(size - 8, MAX_HEADER_BYTES):
        raise _Malformed(f"{path.name} ends in the middle of its header")
    return _parse(file.read(length), path.name), size - 8 - length


def _tensor(name: str, tensor: object, space: int) -> tuple[str, int, int]:
    """Return a tensor's type, elements and bytes, if it lies within the file and its shape agrees."""
    shown = name[:100]
    if not isinstance(tensor, dict):
        raise _Malformed(f"tensor {shown!r} is not described")
    dtype, shape, offsets = tensor.get("dtype"), tensor.get("shape"), tensor.get("data_offsets")
    if (
        not isinstance(dtype, str)
        or dtype not in BITS
        or not _whole(shape)
        or not _whole(offsets)
        or len(offsets) != 2
    ):
        raise _Malformed(f"tensor {shown!r} has no usable type, shape or place")
    elements, (start, end) = math.prod(shape), offsets
    if not start <= end <= space:
        raise _Malformed(f"tensor {shown!r} lies beyond the end of its file: truncated?")
    if elements > MAX_ELEMENTS or -(-elements * BITS[dtype] // 8) != end - start:
        raise _Malformed(f"tensor {shown!r} is not as large as its shape")
    return dtype, elements, end - start


def _whole(values: object) -> TypeGuard[list[int]]:
    """Whether it is a short list of whole numbers that are not absurd."""
    return (
        isinstance(values, list)
        and len(values) <= 16
        and all(type(value) is int and 0 <= value <= MAX_DIMENSION for value in values)
    )


def _object(path: Path, most: int) -> dict[str, Any]:
    if not path.is_file():
        raise _Malformed(f"it has no {path.name}")
    if path.stat().st_size > most:
        raise _Malformed(f"{path.name} is too large")
    return _parse(path.read_bytes(), path.name)


def _parse(text: bytes, name: str) -> dict[str, Any]:
    try:
        found = json.loads(text, object_pairs_hook=_members)
    except (ValueError, RecursionError) as error:
        raise _Malformed(f"{name} cannot be understood") from error
    if not isinstance(found, dict):
        raise _Malformed(f"{name} is not an object")
    return found


def _members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Refuse an object that says something twice: readers differ in which they believe."""
    members = dict(pairs)
    if len(members) < len(pairs):
        raise _Malformed("it says something twice")
    return members


def _describe(folder: Path, config: Mapping[str, Any], tensors: _Tensors) -> SafetensorsHeader:
    text = config.get("text_config")  # where the model also sees or hears
    shape = _Config({**config, **text} if isinstance(text, dict) else config)
    layers, heads, hidden = (
        shape.needed(n) for n in ("num_hidden_layers", "num_attention_heads", "hidden_size")
    )
    if layers > MAX_LAYERS:
        raise _Malformed(f"it claims {layers} layers")
    sliding = shape.sliding_layers(layers)
    head = shape.number("head_dim", max(1, hidden // heads))
    return SafetensorsHeader(
        architecture=shape.text("model_type"),
        name=shape.text("_name_or_path"),
        context_length=shape.needed("max_position_embeddings"),
        layers=layers,
        embedding_length=hidden,
        feed_forward_length=shape.number("intermediate_size", 4 * hidden),
        vocabulary_size=shape.needed("vocab_size"),
        heads=heads,
        kv_heads=shape.kv_heads(layers, heads),
        key_length=head,
        value_length=head,
        sliding_window=shape.window if any(sliding) else None,
        sliding_layers=sliding,
        tensor_bytes=tensors.bytes_by_dtype.total(),
        has_chat_template=_has_template(folder),
        parameters=tensors.parameters,
        dtype=max(tensors.bytes_by_dtype, key=tensors.bytes_by_dtype.__getitem__, default=""),
        quantisation=shape.quantisation(),
    )


class _Config:
    """A model's `config.json`: what it lacks has a default, and what is of the wrong type is an error."""

    def __init__(self, values: Mapping[str, Any]) -> None:
        self._values = values

    def number(self, key: str, default: int) -> int:
        value = self._values.get(key)
        value = default if value is None else value
        if type(value) is not int or not 0 < value <= MAX_DIMENSION:
            raise _Malformed(f"its {CONFIG} has no usable `{key}`")
        return value

    def needed(self, key: str) -> int:
        return self.number(key, 0)

    def text(self, key: str) -> str:
        value = self._values.get(key)
        return value if isinstance(value, str) else ""

    @property
    def window(self) -> int | None:
        """The window, unless the model says that it does not use it."""
        if self._values.get("use_sliding_window") is False or self._values.get("sliding_window") is None:
            return None
        return self.number("sliding_window", 0)

    def sliding_layers(self, layers: int) -> tuple[bool, ...]:
        """Which layers slide: as listed, or by a pattern, or all where only a window is named."""
        if self.window is None:
            return (False,) * layers
        if isinstance(kinds := self._values.get("layer_types"), list) and len(kinds) == layers:
            return tuple(kind == "sliding_attention" for kind in kinds)
        if self._values.get("sliding_window_pattern") is not None:
            pattern = self.number("sliding_window_pattern", 0)
            return tuple((layer + 1) % pattern != 0 for layer in range(layers))
        first = self._values.get("max_window_layers")
        return tuple(type(first) is not int or layer >= first for layer in range(layers))

    def kv_heads(self, layers: int, heads: int) -> tuple[int, ...]:
        """Heads by layer; a layer that keeps a state in place of a cache has none."""
        count = self.number("num_key_value_heads", heads)
        kinds = self._values.get("layer_types")
        if not isinstance(kinds, list) or len(kinds) != layers:
            return (count,) * layers
        return tuple(
            count if "attention" in str(kind) and kind != "linear_attention" else 0 for kind in kinds
        )

    def quantisation(self) -> str | None:
        found = self._values.get("quantization_config")
        method = found.get("quant_method") if isinstance(found, dict) else None
        return method if isinstance(method, str) else None


def _has_template(folder: Path) -> bool:
    if (folder / "chat_template.jinja").is_file():
        return True
    path = folder / "tokenizer_config.json"
    return path.is_file() and "chat_template" in _object(path, MAX_CONFIG_BYTES)
