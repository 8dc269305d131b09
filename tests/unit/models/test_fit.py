from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.fit import CHECKPOINTS, MIB, PROCESS_OVERHEAD, TOKENIZER_BYTES, estimate, fits
from models.header import GgufHeader

Make = Callable[..., GgufHeader]
SMOLLM2_BYTES = 98_362_432


def test_the_cache_is_layers_times_heads_times_lengths_times_tokens(header: Make) -> None:
    found = estimate(header(), size_bytes=SMOLLM2_BYTES, context=2048, slots=4)
    assert found.kv_cache == 30 * 3 * (64 + 64) * 2 * 2048 * 4
    assert found.weights == SMOLLM2_BYTES
    assert found.total == found.weights + found.kv_cache + found.compute + found.overhead


@pytest.mark.parametrize(
    ("context", "slots", "taken_mib"),
    [(256, 1, 160), (256, 2, 167), (256, 4, 180), (256, 8, 207), (1024, 1, 179), (1024, 2, 202)],
)
def test_the_estimate_is_what_the_engine_was_seen_to_take(
    header: Make, context: int, slots: int, taken_mib: int
) -> None:
    # The resident memory of xllamacpp 2026.10's server on Linux after it had filled every slot to its end.
    total = estimate(header(), size_bytes=SMOLLM2_BYTES, context=context, slots=slots).total / MIB
    assert 0.95 * taken_mib <= total <= taken_mib * 1.15


@pytest.mark.parametrize(
    ("shape", "context", "buffer_mib"),
    [
        ({}, 256, 7.45),
        ({}, 8192, 11.32),
        ({"embedding_length": 256, "feed_forward_length": 512, "heads": 4}, 256, 2.38),
        ({"embedding_length": 2048, "feed_forward_length": 5632, "heads": 16, "key_length": 128}, 256, 26.63),
        (
            {"embedding_length": 2048, "feed_forward_length": 5632, "heads": 16, "key_length": 128},
            4096,
            28.51,
        ),
    ],
)
def test_scratch_memory_is_what_llama_cpp_logs(
    header: Make, shape: dict[str, int], context: int, buffer_mib: float
) -> None:
    model = header(**shape, vocabulary_size=0)  # what is drawn from lies in another buffer
    compute = estimate(model, size_bytes=1, context=context, slots=1).compute / MIB
    assert 0.95 * buffer_mib <= compute <= 1.25 * buffer_mib


def test_layers_without_a_cache_cost_none(header: Make) -> None:
    found = estimate(header(layers=4, kv_heads=(2, 0, 0, 2)), size_bytes=1, context=1000, slots=1)
    assert found.kv_cache == 4 * 128 * 2 * 1000


def test_a_sliding_layer_keeps_its_window_one_batch_and_what_it_may_go_back_to(header: Make) -> None:
    sliding = header(layers=2, kv_heads=(1, 1), sliding_window=1000, sliding_layers=(True, False))
    found = estimate(sliding, size_bytes=1, context=100_000, slots=1)
    assert found.kv_cache == (1280 + CHECKPOINTS * 1000 + 100_000) * 128 * 2
    short = estimate(sliding, size_bytes=1, context=700, slots=1)
    assert short.kv_cache == (2 + CHECKPOINTS) * 700 * 128 * 2


def test_what_the_caller_adds_is_added(header: Make) -> None:
    plain = estimate(header(), size_bytes=1, context=512, slots=2)
    cached = estimate(header(), size_bytes=1, context=512, slots=2, prompt_cache_bytes=100)
    assert cached.total == plain.total + 100
    assert plain.overhead == PROCESS_OVERHEAD + 49152 * TOKENIZER_BYTES
    # llama.cpp's GPU scratch buffer holds the logits of a whole batch.
    on_gpu = estimate(header(), size_bytes=1, context=512, slots=2, accelerated=True)
    assert on_gpu.compute - plain.compute == 49152 * 4 * 256


def test_fits_is_inclusive(header: Make) -> None:
    found = estimate(header(), size_bytes=SMOLLM2_BYTES, context=2048, slots=1)
    assert fits(found, found.total)
    assert not fits(found, found.total - 1)


@given(
    context=st.integers(1, 200_000),
    more_context=st.integers(0, 100_000),
    slots=st.integers(1, 64),
    more_slots=st.integers(0, 64),
    element=st.sampled_from([2.0, 34 / 32, 18 / 32]),
    window=st.none() | st.integers(1, 10_000),
)
def test_more_never_costs_less(
    header: Make,
    context: int,
    more_context: int,
    slots: int,
    more_slots: int,
    element: float,
    window: int | None,
) -> None:
    shape = header(sliding_window=window, sliding_layers=(window is not None, *((False,) * 29)))
    small = estimate(shape, size_bytes=10, context=context, slots=slots, kv_element_bytes=element)
    large = estimate(
        shape,
        size_bytes=10,
        context=context + more_context,
        slots=slots + more_slots,
        kv_element_bytes=element,
    )
    assert small.total <= large.total
    assert small.kv_cache <= estimate(shape, size_bytes=10, context=context, slots=slots).kv_cache
