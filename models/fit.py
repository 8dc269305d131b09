"""How much memory a replica will take, and whether it fits. Pure arithmetic: no files, no clock, no devices.

The estimate is what llama.cpp allocates: the weights, a key/value cache for every token of every slot, the
scratch memory of one batch, and what the engine's process takes before it has loaded anything.

The constants marked "measured" come from the resident memory of llama.cpp's own server (xllamacpp 2026.10,
Linux, CPU) with SmolLM2-135M at three shapes (1 slot of 2048, 4 of 2048, 4 of 8192 tokens, caches filled or
nearly empty): the estimate lay 1 to 10 % above what was taken, never below.
"""

from dataclasses import dataclass

from models.header import ModelHeader

MIB = 1024 * 1024
F16_BYTES = 2.0
F32_BYTES = 4

# llama.cpp computes a prompt in pieces of this many tokens (its `n_ubatch`); scratch memory grows with it.
BATCH_TOKENS = 512
# llama.cpp rounds the window's cache up to a multiple of this many tokens.
CACHE_PADDING = 256
# Copies of the hidden state, and of the feed-forward state, alive at once in one layer (measured).
HIDDEN_COPIES = 8
FEED_FORWARD_COPIES = 3
# The engine's process without a model: interpreter, libraries, HTTP threads, tokenizer (measured: 45-64 MiB).
PROCESS_OVERHEAD = 64 * MIB


@dataclass(frozen=True, kw_only=True, slots=True)
class MemoryEstimate:
    """Bytes, by what they are for."""

    weights: int
    kv_cache: int
    compute: int
    overhead: int

    @property
    def total(self) -> int:
        """All of it, in bytes: what a placement must reserve."""
        return self.weights + self.kv_cache + self.compute + self.overhead


def estimate(
    header: ModelHeader,
    *,
    size_bytes: int,
    context: int,
    slots: int,
    kv_element_bytes: float = F16_BYTES,
    prompt_cache_bytes: int = 0,
    accelerated: bool = False,
) -> MemoryEstimate:
    """Estimate the memory one replica takes.

    Args:
        header: Of the weights.
        size_bytes: Of the weights, all files together.
        context: Tokens in ONE slot. The engine's own context size is `context * slots`.
        slots: Requests answered at the same time.
        kv_element_bytes: Of one cached number: 2 for f16, 34/32 for q8_0.
        prompt_cache_bytes: What the engine may keep of finished prompts beside its slots, if it was told to.
        accelerated: Whether scratch buffers lie on a GPU, which commits them whole. A CPU only pays for the
            pages it touches, and the logits of a whole batch are never all asked for.
    """
    return MemoryEstimate(
        weights=size_bytes,
        kv_cache=_kv_cache(header, context, kv_element_bytes) * slots,
        compute=_compute(header, context, slots, accelerated=accelerated),
        overhead=PROCESS_OVERHEAD + prompt_cache_bytes,
    )


def fits(estimate: MemoryEstimate, free_bytes: int) -> bool:
    """Whether the replica fits into `free_bytes`."""
    return estimate.total <= free_bytes


def _kv_cache(header: ModelHeader, context: int, element_bytes: float) -> int:
    """Return the bytes of one slot's cache."""
    elements = sum(
        heads * _cached_tokens(header, context, sliding=sliding)
        for heads, sliding in zip(header.kv_heads, header.sliding_layers, strict=True)
    )
    return int(elements * (header.key_length + header.value_length) * element_bytes)


def _cached_tokens(header: ModelHeader, context: int, *, sliding: bool) -> int:
    """A sliding layer keeps its window and one batch, in whole paddings; any other keeps everything."""
    if not sliding or header.sliding_window is None:
        return context
    window = header.sliding_window + BATCH_TOKENS
    return min(context, -(-window // CACHE_PADDING) * CACHE_PADDING)


def _compute(header: ModelHeader, context: int, slots: int, *, accelerated: bool) -> int:
    batch = min(BATCH_TOKENS, context * slots)
    activations = HIDDEN_COPIES * header.embedding_length + FEED_FORWARD_COPIES * header.feed_forward_length
    logits = header.vocabulary_size * (batch if accelerated else slots)
    return F32_BYTES * (batch * activations + batch * context + logits)
