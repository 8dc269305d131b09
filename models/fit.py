"""How much memory a replica will take, and whether it fits. Pure arithmetic: no files, no clock, no devices.

The estimate is what llama.cpp's server has in resident memory once every slot has answered: the weights, a
key/value cache for every token of every slot (llama.cpp clears it when it makes it, so its pages are there
from the start, filled or not), the scratch memory of one batch, and the engine's process with its vocabulary.

The constants marked "measured" are of xllamacpp 2026.10 on Linux and a CPU, with SmolLM2-135M and with made
models of other shapes (vocabularies of 16,000 and 128,000, hidden states of 256 and 2,048); what llama.cpp
logs of its buffers agrees. `tests/backends/test_memory.py` holds the whole to what the engine takes.
"""

from dataclasses import dataclass

from models.header import ModelHeader

MIB = 1024 * 1024
F16_BYTES = 2.0
F32_BYTES = 4

# Tokens of a prompt that are computed at once (llama.cpp's `n_ubatch`, as this project starts it): scratch
# memory grows with it, and whoever left is noticed between two batches.
BATCH_TOKENS = 256
# llama.cpp rounds the window's cache up to a multiple of this many tokens.
CACHE_PADDING = 256
# States of a model that slides that each slot may keep, to go back to; llama.cpp's own choice is 32.
CHECKPOINTS = 4
# Parts of the names of architectures that only embed.
ENCODERS = ("bert", "t5encoder", "gemma-embedding")
# Copies of the hidden state, and of the feed-forward state, alive at once in one layer (measured).
HIDDEN_COPIES = 5
FEED_FORWARD_COPIES = 3
# What one token of the vocabulary costs a slot: its logit, and its id, logit and chance while one is drawn.
DRAWN_TOKEN_BYTES = 4 + 12
# What one token costs the tokenizer: texts, merges and the tables over them (measured: 413).
TOKENIZER_BYTES = 420
# The engine's process: interpreter and libraries (measured: 32 MiB), threads, HTTP and what requests leave
# in the allocator's pools (measured: 1 to 6 MiB).
PROCESS_OVERHEAD = 40 * MIB


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
    batch: int = BATCH_TOKENS,
    embeds: bool = False,
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
        batch: Tokens that are computed at once.
        embeds: Whether every token's state is asked for. llama.cpp keeps room for the logits of each then,
            and computes them where the model has them, though nothing is drawn.
    """
    return MemoryEstimate(
        weights=size_bytes,
        kv_cache=_kv_cache(header, context, kv_element_bytes, batch) * slots,
        compute=_compute(
            header, context, slots, min(batch, context * slots), accelerated=accelerated, embeds=embeds
        ),
        overhead=PROCESS_OVERHEAD + TOKENIZER_BYTES * header.vocabulary_size + prompt_cache_bytes,
    )


def is_encoder(header: ModelHeader) -> bool:
    """Whether llama.cpp has neither a cache nor an output layer for models of this architecture."""
    return any(family in header.architecture for family in ENCODERS)


def fits(estimate: MemoryEstimate, free_bytes: int) -> bool:
    """Whether the replica fits into `free_bytes`."""
    return estimate.total <= free_bytes


def _kv_cache(header: ModelHeader, context: int, element_bytes: float, batch: int) -> int:
    """Return the bytes of one slot's cache, with the states of its sliding layers that it may go back to."""
    if is_encoder(header):
        return 0
    elements = sum(
        heads * _cached_tokens(header, context, batch, sliding=sliding)
        for heads, sliding in zip(header.kv_heads, header.sliding_layers, strict=True)
    )
    return int(elements * (header.key_length + header.value_length) * element_bytes)


def _cached_tokens(header: ModelHeader, context: int, batch: int, *, sliding: bool) -> int:
    """A sliding layer keeps its window and one batch, in whole paddings; any other keeps everything."""
    if not sliding or header.sliding_window is None:
        return context
    window = header.sliding_window + batch
    kept = min(context, -(-window // CACHE_PADDING) * CACHE_PADDING)
    return kept + CHECKPOINTS * min(context, header.sliding_window)


def _compute(
    header: ModelHeader, context: int, slots: int, batch: int, *, accelerated: bool, embeds: bool
) -> int:
    """Return the bytes of a batch's states, of its mask over the context, and of what is drawn from."""
    widest = max(header.embedding_length, header.heads * header.key_length)
    states = HIDDEN_COPIES * widest + FEED_FORWARD_COPIES * header.feed_forward_length
    mask = int(batch * context * F16_BYTES)
    drawn = header.vocabulary_size * DRAWN_TOKEN_BYTES * slots
    computed = accelerated or (embeds and not is_encoder(header))
    kept = embeds and not accelerated  # in ordinary memory, also where a GPU computes
    copies = int(computed) + int(kept)
    return F32_BYTES * batch * (states + copies * header.vocabulary_size) + mask + drawn
