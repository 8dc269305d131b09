"""The estimate against what the real engine takes, at many shapes and on every engine."""

import asyncio
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Any

import pytest

from runtime.backends.base import EngineOptions
from runtime.devices import CpuDevice

pytestmark = pytest.mark.timeout(300)

Start = Callable[[EngineOptions], AbstractAsyncContextManager[Any]]
# Context and slots of each engine; few where a start takes minutes. llama-cpp-python, whose process grows
# with what was asked of it, is held to its estimate by the conformance suite alone, at its end.
SHAPES = [
    *(
        pytest.param("llama_cpp", context, slots, marks=pytest.mark.engine)
        for context in (256, 1024, 2048, 8192)
        for slots in (1, 2, 4, 8)
    ),
    pytest.param("llama_server", 2048, 4, marks=pytest.mark.compiled),
    *(
        pytest.param("vllm", context, slots, marks=[pytest.mark.vllm, pytest.mark.timeout(900)])
        for context, slots in ((512, 1), (1024, 8), (2048, 4), (8192, 2))
    ),
]


async def answer(engine: Any, tokens: int, number: int) -> None:
    """Read a prompt of about so many tokens, unlike any other number's from the start, and say a little."""
    prompt = f"{number} " + "word " * (tokens - 4)
    order = {"model": engine.case.spec.id, "prompt": prompt, "max_tokens": 4}
    answered = await engine.client.post("/v1/completions", json=order)
    assert answered.status_code == 200, answered.text


def compare(engine: Any) -> tuple[int, int]:
    """What was estimated, and what the node would measure now; bytes."""
    return engine.plan.memory.total, CpuDevice().memory_use(engine.process.pids()).ours


@pytest.mark.parametrize(("case", "context", "slots"), SHAPES, indirect=["case"])
async def test_the_estimate_is_near_what_is_taken_once_every_slot_has_answered(
    start: Start, context: int, slots: int
) -> None:
    """Within 15 %, and never under by more than 5 %.

    Measured is what `CpuDevice.memory_use` says, for one process its RSS with the mapped weights. llama.cpp
    clears a cache when it makes it, so all of its pages are there before the first token; a prompt in every
    slot touches the weights and the scratch memory. That filling slots adds nothing is the next test's.
    """
    async with start(EngineOptions(context_length=context, slots=slots)) as engine:
        await asyncio.gather(*(answer(engine, 120, number) for number in range(slots)))
        estimated, taken = compare(engine)
    assert 0.95 * taken <= estimated <= 1.15 * taken, f"{estimated:,} for {taken:,}"


@pytest.mark.parametrize("case", [pytest.param("llama_cpp", marks=pytest.mark.engine)], indirect=True)
@pytest.mark.parametrize(("context", "slots"), [(512, 4), (2048, 1)])
async def test_a_model_that_reads_its_input_in_one_piece_is_given_the_scratch_memory_for_it(
    start_pooling: Start, context: int, slots: int
) -> None:
    """A mean is made of all tokens at once: of as many as the context has."""
    async with start_pooling(EngineOptions(context_length=context, slots=slots)) as engine:
        texts = [f"{number} " + "word " * (context - 12) for number in range(slots)]
        order = {"model": engine.case.spec.id, "input": texts}
        answered = await engine.client.post("/v1/embeddings", json=order)
        assert answered.status_code == 200, answered.text
        assert answered.json()["usage"]["prompt_tokens"] > slots * (context - 12)
        estimated, taken = compare(engine)
    assert 0.95 * taken <= estimated <= 1.15 * taken, f"{estimated:,} for {taken:,}"


@pytest.mark.parametrize("case", [pytest.param("llama_cpp", marks=pytest.mark.engine)], indirect=True)
async def test_a_slot_that_is_filled_to_its_end_takes_nothing_that_was_not_estimated(start: Start) -> None:
    async with start(EngineOptions(context_length=1024, slots=2)) as engine:
        await asyncio.gather(*(answer(engine, 240, number) for number in range(2)))
        _, before = compare(engine)
        await asyncio.gather(*(answer(engine, 1010, number) for number in range(2)))
        estimated, after = compare(engine)
    assert after <= 1.05 * before
    assert 0.95 * after <= estimated <= 1.15 * after, f"{estimated:,} for {after:,}"
