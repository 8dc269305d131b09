"""What a weights file says about itself. Pure data: reading it from a file is `models.formats`' business."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class GgufHeader:
    """The part of a GGUF file's metadata that memory and capabilities depend on.

    Attributes:
        context_length: Tokens the model was trained for.
        kv_heads: Key/value heads of each layer, as long as there are layers; 0 where a layer keeps no cache
            (recurrent layers of hybrid models).
        key_length: Elements of one key head; `value_length` of one value head.
        sliding_window: Tokens a sliding layer looks back, or None.
        sliding_layers: For each layer, whether it only looks back `sliding_window` tokens.
        file_type: llama.cpp's number for the main quantisation, or None where the file does not say.
        tensor_bytes: Of all weights together.
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
    file_type: int | None
    tensor_bytes: int
    has_chat_template: bool
