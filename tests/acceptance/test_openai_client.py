"""The official `openai` client, unmodified, against a real Hub, node, engine and model."""

from collections.abc import Callable

import openai
import pytest
from openai.types.chat import ChatCompletionMessageParam

from benchmarks.stacks.stack import MODEL, Stack

pytestmark = pytest.mark.asyncio(loop_scope="module")
HELLO: list[ChatCompletionMessageParam] = [{"role": "user", "content": "Say hello."}]
MakeClient = Callable[[str], openai.AsyncOpenAI]


async def test_a_plain_answer_has_usage_and_says_where_it_ran(
    client: openai.AsyncOpenAI, stack: Stack
) -> None:
    raw = await client.chat.completions.with_raw_response.create(
        model=MODEL, messages=HELLO, max_tokens=12, temperature=0
    )
    answer = raw.parse()
    assert answer.choices[0].message.content
    assert answer.choices[0].finish_reason in ("stop", "length")
    assert answer.usage is not None
    assert answer.usage.completion_tokens <= 12
    assert raw.headers["x-porten-region"] == "eu-de"
    assert raw.headers["x-porten-node"].startswith("node_")
    assert raw.headers["x-request-id"].startswith("req_")
    assert raw.headers["x-porten-model-digest"].startswith("sha256:")


async def test_a_streamed_answer_comes_in_chunks_and_ends_with_a_reason(client: openai.AsyncOpenAI) -> None:
    stream = await client.chat.completions.create(
        model=MODEL, messages=HELLO, max_tokens=16, temperature=0, stream=True
    )
    chunks = [chunk async for chunk in stream]
    texts = [c.choices[0].delta.content for c in chunks if c.choices and c.choices[0].delta.content]
    assert len(texts) > 3
    assert chunks[-1].choices[0].finish_reason in ("stop", "length")
    assert all(chunk.usage is None for chunk in chunks), "usage was not asked for"


async def test_include_usage_is_answered_as_openai_does(client: openai.AsyncOpenAI) -> None:
    stream = await client.chat.completions.create(
        model=MODEL,
        messages=HELLO,
        max_tokens=10,
        stream=True,
        stream_options={"include_usage": True},
    )
    chunks = [chunk async for chunk in stream]
    assert chunks[-1].choices == []
    assert chunks[-1].usage is not None
    assert 1 <= chunks[-1].usage.completion_tokens <= 10


async def test_max_completion_tokens_works_too(client: openai.AsyncOpenAI) -> None:
    answer = await client.chat.completions.create(model=MODEL, messages=HELLO, max_completion_tokens=3)
    assert answer.usage is not None
    assert answer.usage.completion_tokens <= 3


async def test_any_parameter_the_engine_knows_passes_through(client: openai.AsyncOpenAI) -> None:
    answer = await client.chat.completions.create(
        model=MODEL, messages=HELLO, max_tokens=20, temperature=0, extra_body={"grammar": 'root ::= "blue"'}
    )
    assert answer.choices[0].message.content == "blue"


async def test_models_lists_what_the_key_may_use(client: openai.AsyncOpenAI) -> None:
    models = [model.id async for model in await client.models.list()]
    assert MODEL in models
    one = await client.models.retrieve(MODEL)
    assert one.id == MODEL


async def test_a_wrong_key_is_an_authentication_error(with_key: MakeClient, stack: Stack) -> None:
    for wrong in ("", "nonsense", "sk-porten-" + "a" * 38, stack.api_key[:-1] + "!"):
        async with with_key(wrong or "-") as stranger:
            with pytest.raises(openai.AuthenticationError) as refusal:
                await stranger.chat.completions.create(model=MODEL, messages=HELLO, max_tokens=1)
            assert refusal.value.code == "invalid_api_key"


async def test_an_unknown_model_is_not_found(client: openai.AsyncOpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as refusal:
        await client.chat.completions.create(model="no-such-model", messages=HELLO, max_tokens=1)
    assert refusal.value.code == "model_not_found"


async def test_a_model_outside_the_keys_list_is_forbidden(with_key: MakeClient, stack: Stack) -> None:
    key = await stack.hub.create_key("narrow", models=["some-other-model"])
    async with with_key(key) as narrow:
        with pytest.raises(openai.PermissionDeniedError) as refusal:
            await narrow.chat.completions.create(model=MODEL, messages=HELLO, max_tokens=1)
    assert refusal.value.code == "model_not_allowed"


async def test_another_region_is_refused_although_the_node_is_free(
    with_key: MakeClient, stack: Stack
) -> None:
    key = await stack.hub.create_key("us only", regions=["us"])
    async with with_key(key) as american:
        with pytest.raises(openai.InternalServerError) as refusal:
            await american.chat.completions.create(model=MODEL, messages=HELLO, max_tokens=1)
        assert (refusal.value.status_code, refusal.value.code) == (503, "no_available_node")
        assert MODEL not in [model.id async for model in await american.models.list()]


async def test_a_header_can_narrow_but_not_widen(
    with_key: MakeClient, client: openai.AsyncOpenAI, stack: Stack
) -> None:
    answer = await client.chat.completions.create(
        model=MODEL, messages=HELLO, max_tokens=1, extra_headers={"X-Porten-Region": "eu-de"}
    )
    assert answer.choices
    with pytest.raises(openai.InternalServerError):
        await client.chat.completions.create(
            model=MODEL, messages=HELLO, max_tokens=1, extra_headers={"X-Porten-Region": "eu-fr"}
        )
    key = await stack.hub.create_key("still us", regions=["us"])
    async with with_key(key) as american:
        with pytest.raises(openai.InternalServerError) as refusal:
            await american.chat.completions.create(
                model=MODEL, messages=HELLO, max_tokens=1, extra_headers={"X-Porten-Region": "eu-de"}
            )
        assert refusal.value.code == "no_available_node"


async def test_a_prompt_too_long_is_the_callers_error(client: openai.AsyncOpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as refusal:
        await client.chat.completions.create(
            model=MODEL, messages=[{"role": "user", "content": "word " * 60_000}], max_tokens=1
        )
    assert refusal.value.code == "context_length_exceeded"
