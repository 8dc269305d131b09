"""Small real weights files, written by the gguf package itself."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest

from models.header import GgufHeader

GgufFactory = Callable[..., Path]
CONFIG = {
    "model_type": "llama",
    "max_position_embeddings": 256,
    "num_hidden_layers": 4,
    "hidden_size": 64,
    "intermediate_size": 128,
    "vocab_size": 100,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
}
TENSORS = {
    "__metadata__": {"format": "pt"},
    "embed": {"dtype": "BF16", "shape": [100, 64], "data_offsets": [0, 12800]},
    "up": {"dtype": "F32", "shape": [8, 32], "data_offsets": [12800, 13824]},
}


@pytest.fixture
def write_gguf(tmp_path: Path) -> GgufFactory:
    def write(
        name: str = "tiny.gguf",
        *,
        architecture: str = "llama",
        extra: Mapping[str, Any] | None = None,
        tokens: int = 5000,
        kv_heads: int | list[int] = 2,
    ) -> Path:
        path = tmp_path / name
        writer = gguf.GGUFWriter(path, architecture)
        writer.add_name("Tiny")
        writer.add_context_length(256)
        writer.add_block_count(4)
        writer.add_embedding_length(64)
        writer.add_feed_forward_length(128)
        writer.add_head_count(4)
        writer.add_head_count_kv(kv_heads)
        writer.add_file_type(1)
        writer.add_token_list([f"token{number}" for number in range(tokens)])
        writer.add_chat_template("{{ messages }}")
        for key, value in (extra or {}).items():
            if isinstance(value, list):
                writer.add_array(f"{architecture}.{key}", value)
            else:
                writer.add_uint32(f"{architecture}.{key}", value)
        writer.add_tensor("token_embd.weight", np.ones((100, 64), dtype=np.float32))
        writer.add_tensor("output.weight", np.ones((100, 64), dtype=np.float16))
        writer.add_tensor(
            "blk.0.ffn_up.weight",
            np.zeros((8, 36), dtype=np.uint8),
            raw_dtype=gguf.GGMLQuantizationType.Q4_0,
        )
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        return path

    return write


@pytest.fixture
def write_safetensors(tmp_path: Path) -> Callable[..., Path]:
    """A folder with a model in it, small and complete."""

    def write(
        *,
        config: Mapping[str, Any] | None = None,
        tensors: Mapping[str, Any] | None = None,
        data: bytes = bytes(13824),
    ) -> Path:
        folder = tmp_path / "model"
        folder.mkdir(exist_ok=True)
        (folder / "config.json").write_text(json.dumps({**CONFIG, **(config or {})}))
        header = json.dumps(TENSORS if tensors is None else tensors).encode()
        (folder / "model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + data)
        return folder

    return write


@pytest.fixture(scope="session")
def header() -> Callable[..., GgufHeader]:
    """A header like SmolLM2's, with anything replaced."""

    def make(**changes: Any) -> GgufHeader:
        layers = changes.get("layers", 30)
        values: dict[str, Any] = {
            "architecture": "llama",
            "name": "SmolLM2",
            "context_length": 8192,
            "layers": layers,
            "embedding_length": 576,
            "feed_forward_length": 1536,
            "vocabulary_size": 49152,
            "heads": 9,
            "kv_heads": (3,) * layers,
            "key_length": 64,
            "value_length": 64,
            "sliding_window": None,
            "sliding_layers": (False,) * layers,
            "file_type": 3,
            "tensor_bytes": 96_576_768,
            "has_chat_template": True,
        }
        return GgufHeader(**{**values, **changes})

    return make
