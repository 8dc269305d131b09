"""What weights say about themselves. Pure data: reading it from files is `models.formats`' business."""

from dataclasses import dataclass
from typing import Literal

Pooling = Literal["mean", "cls", "last", "rank"]


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelHeader:
    """The part of a model's description that memory and capabilities depend on, whatever the format.

    Attributes:
        context_length: Tokens the model was trained for.
        kv_heads: Key/value heads of each layer, as long as there are layers; 0 where a layer keeps no cache
            (recurrent layers of hybrid models).
        key_length: Elements of one key head; `value_length` of one value head.
        sliding_window: Tokens a sliding layer looks back, or None.
        sliding_layers: For each layer, whether it only looks back `sliding_window` tokens.
        tensor_bytes: Of all weights together.
        parameters: Numbers in all weights together, where the files at hand tell.
    """

    architecture: str
    name: str
    context_length: int
    layers: int
    embedding_length: int
    feed_forward_length: int
    vocabulary_size: int
    heads: int
    kv_heads: tuple[int, ...]
    key_length: int
    value_length: int
    sliding_window: int | None
    sliding_layers: tuple[bool, ...]
    tensor_bytes: int
    has_chat_template: bool
    parameters: int = 0


@dataclass(frozen=True, kw_only=True, slots=True)
class GgufHeader(ModelHeader):
    """A GGUF file's metadata.

    Attributes:
        file_type: llama.cpp's number for the main quantisation, or None where the file does not say.
        pooling: How the model was trained to make one embedding of its tokens' states, or None.
        causal: Whether a token only sees those before it, as in all that generate.
    """

    file_type: int | None
    pooling: Pooling | None = None
    causal: bool = True


@dataclass(frozen=True, kw_only=True, slots=True)
class SafetensorsHeader(ModelHeader):
    """A folder's `config.json`, and the headers of its safetensors files.

    Attributes:
        dtype: What most of the weights' bytes are kept in, as safetensors spells it (`BF16`).
        quantisation: The method that `config.json` names, or None.
    """

    dtype: str
    quantisation: str | None
