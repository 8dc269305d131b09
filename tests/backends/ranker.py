"""A model that ranks, small enough to be made by a test: BERT's architecture with weights drawn by lot.

It is written twice, as a GGUF file and as a folder of safetensors, with the same weights and the same words:
engines that read either must agree which text fits best. What it prefers means nothing.
"""

import json
import struct
from collections.abc import Iterator
from pathlib import Path

import gguf
import numpy as np
from numpy.typing import NDArray

Weights = NDArray[np.float32]

CONTEXT = 512
_WIDTH, _INNER, _LAYERS, _HEADS = 64, 128, 2, 2
_SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
_LETTERS = tuple("abcdefghijklmnopqrstuvwxyz0123456789.,!?'-")
_WORDS = len(_SPECIAL) + 2 * len(_LETTERS)
_BLOCK = (
    ("attn_q", "attention.self.query", (_WIDTH, _WIDTH)),
    ("attn_k", "attention.self.key", (_WIDTH, _WIDTH)),
    ("attn_v", "attention.self.value", (_WIDTH, _WIDTH)),
    ("attn_output", "attention.output.dense", (_WIDTH, _WIDTH)),
    ("attn_output_norm", "attention.output.LayerNorm", (_WIDTH,)),
    ("ffn_up", "intermediate.dense", (_INNER, _WIDTH)),
    ("ffn_down", "output.dense", (_WIDTH, _INNER)),
    ("layer_output_norm", "output.LayerNorm", (_WIDTH,)),
)


def tensors() -> Iterator[tuple[str, str, Weights]]:
    """Each tensor with its name in GGUF and its name in safetensors."""
    lots = np.random.default_rng(7)

    def drawn(*shape: int) -> Weights:
        return lots.normal(0, 0.3, shape).astype(np.float32)

    yield "token_embd.weight", "bert.embeddings.word_embeddings.weight", drawn(_WORDS, _WIDTH)
    # llama.cpp takes every text for the first of a pair: both kinds are alike.
    kinds = np.repeat(drawn(1, _WIDTH), 2, axis=0)
    yield "token_types.weight", "bert.embeddings.token_type_embeddings.weight", kinds
    yield "position_embd.weight", "bert.embeddings.position_embeddings.weight", drawn(CONTEXT, _WIDTH)
    layers = [("token_embd_norm", "bert.embeddings.LayerNorm", (_WIDTH,))]
    for layer in range(_LAYERS):
        layers += [(f"blk.{layer}.{a}", f"bert.encoder.layer.{layer}.{b}", shape) for a, b, shape in _BLOCK]
    layers += [("cls", "bert.pooler.dense", (_WIDTH, _WIDTH)), ("cls.output", "classifier", (1, _WIDTH))]
    for here, there, shape in layers:
        is_norm = len(shape) == 1
        weight = np.ones(shape, np.float32) if is_norm else drawn(*shape)
        yield f"{here}.weight", f"{there}.weight", weight
        yield f"{here}.bias", f"{there}.bias", drawn(shape[0]) / 10


def write_gguf(path: Path) -> Path:
    """Write it as llama.cpp reads it."""
    writer = gguf.GGUFWriter(path, "bert")
    writer.add_context_length(CONTEXT)
    writer.add_embedding_length(_WIDTH)
    writer.add_feed_forward_length(_INNER)
    writer.add_block_count(_LAYERS)
    writer.add_head_count(_HEADS)
    writer.add_layer_norm_eps(1e-12)
    writer.add_causal_attention(value=False)
    writer.add_pooling_type(gguf.PoolingType.RANK)
    writer.add_file_type(gguf.LlamaFileType.ALL_F32)
    writer.add_tokenizer_model("bert")
    writer.add_tokenizer_pre("default")
    writer.add_token_list([*_SPECIAL, *(f"\u2581{letter}" for letter in _LETTERS), *_LETTERS])
    plain = [gguf.TokenType.NORMAL] * (2 * len(_LETTERS))
    writer.add_token_types([gguf.TokenType.CONTROL] * len(_SPECIAL) + plain)
    writer.add_token_type_count(2)
    writer.add_pad_token_id(0)
    writer.add_unk_token_id(1)
    writer.add_bos_token_id(2)
    writer.add_eos_token_id(3)
    writer.add_sep_token_id(3)
    writer.add_mask_token_id(4)
    for name, _, tensor in tensors():
        writer.add_tensor(name, tensor)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def write_safetensors(folder: Path) -> Path:
    """Write it as vLLM reads it."""
    folder.mkdir()
    config = {
        "architectures": ["BertForSequenceClassification"],
        "model_type": "bert",
        "dtype": "float32",
        "hidden_act": "gelu",
        "hidden_size": _WIDTH,
        "id2label": {"0": "LABEL_0"},
        "label2id": {"LABEL_0": 0},
        "intermediate_size": _INNER,
        "layer_norm_eps": 1e-12,
        "max_position_embeddings": CONTEXT,
        "num_attention_heads": _HEADS,
        "num_hidden_layers": _LAYERS,
        "pad_token_id": 0,
        "type_vocab_size": 2,
        "vocab_size": _WORDS,
    }
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "vocab.txt").write_text(
        "\n".join([*_SPECIAL, *_LETTERS, *(f"##{letter}" for letter in _LETTERS)]) + "\n"
    )
    (folder / "tokenizer_config.json").write_text(
        json.dumps({"tokenizer_class": "BertTokenizer", "do_lower_case": True, "model_max_length": CONTEXT})
    )
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    content = b""
    for _, name, tensor in tensors():
        data = tensor.tobytes()
        offsets = [len(content), len(content) + len(data)]
        header[name] = {"dtype": "F32", "shape": list(tensor.shape), "data_offsets": offsets}
        content += data
    head = json.dumps(header).encode()
    head += b" " * (-len(head) % 8)
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", len(head)) + head + content)
    return folder
