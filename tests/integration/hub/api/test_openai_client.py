"""The official client, unmodified: answers, streams, usage, and its own exception classes."""

import asyncio

import openai
import pytest

from tunnel.messages import Head, Trailers

MESSAGES = [{"role": "user", "content": "count"}]


@pytest.fixture
async def client(bench):
    organisation = await bench.organisation()
    await bench.node(organisation)
    async with bench.client(await bench.key(organisation)) as found:
        yield found


async def test_a_whole_answer_and_where_it_came_from(bench, client):
    raw = await client.chat.completions.with_raw_response.create(model="tiny", messages=MESSAGES)
    answer = raw.parse()
    assert answer.choices[0].message.content == "one two three"
    assert answer.usage.total_tokens == 10
    (node_id,) = bench.nodes
    assert raw.headers["x-porten-node"] == node_id
    assert raw.headers["x-porten-region"] == "eu-de"
    assert raw.headers["x-porten-model-digest"] == "sha256:feed"
    (record,) = await bench.usage(1)
    assert record.request_id == raw.headers["x-request-id"]
    assert (record.prompt_tokens, record.cached_tokens, record.completion_tokens) == (7, 2, 3)
    assert (record.node_id, record.region, record.model, record.outcome) == (node_id, "eu-de", "tiny", "ok")


async def test_a_stream_word_by_word(bench, client):
    words = []
    async for event in await client.chat.completions.create(model="tiny", messages=MESSAGES, stream=True):
        words += [choice.delta.content for choice in event.choices]
    assert words == ["one ", "two ", "three"]
    assert [record.completion_tokens for record in await bench.usage(1)] == [3]


async def test_usage_in_the_stream_where_it_was_asked_for(client):
    events = await client.chat.completions.create(
        model="tiny", messages=MESSAGES, stream=True, stream_options={"include_usage": True}
    )
    last = [event async for event in events][-1]
    assert (last.choices, last.usage.total_tokens) == ([], 10)


async def test_the_body_reaches_the_engine_as_it_was_sent(bench, client):
    await client.chat.completions.create(
        model="tiny", messages=MESSAGES, max_completion_tokens=5, extra_body={"a_knob_of_the_engine": [1.50]}
    )
    (node,) = bench.nodes.values()
    assert b'"a_knob_of_the_engine":[1.5]' in node.seen[0]["body"].replace(b" ", b"")
    assert node.seen[0]["path"] == "/v1/chat/completions"
    assert "authorization" not in node.seen[0]["headers"]


async def test_models_and_one_model(client):
    (model,) = [model async for model in client.models.list()]
    assert (model.id, model.state, model.context_length) == ("tiny", "ready", 512)
    assert (await client.models.retrieve("tiny")).capabilities == ["chat", "completions"]
    with pytest.raises(openai.NotFoundError):
        await client.models.retrieve("none")


@pytest.mark.parametrize(
    ("wrong", "error", "code"),
    [
        ({"model": "none"}, openai.NotFoundError, "model_not_found"),
        (
            {"tools": [{"type": "function", "function": {"name": "f"}}]},
            openai.BadRequestError,
            "unsupported_parameter",
        ),
        ({"extra_headers": {"X-Porten-Region": "us"}}, openai.InternalServerError, "no_available_node"),
        ({"extra_headers": {"X-Porten-Region": "EU!"}}, openai.BadRequestError, "invalid_value"),
        (
            {"extra_headers": {"Authorization": "Bearer sk-nonsense"}},
            openai.AuthenticationError,
            "invalid_api_key",
        ),
    ],
)
async def test_errors_are_its_own_classes(client, wrong, error, code):
    with pytest.raises(error) as caught:
        await client.chat.completions.create(**{"model": "tiny", "messages": MESSAGES} | wrong)
    assert caught.value.code == code
    assert caught.value.request_id.startswith("req_")
    assert caught.value.body["message"]


async def test_a_model_that_the_key_excludes(bench, client):
    organisation = (await bench.hub.storage.organisations.list())[0].id
    async with bench.client(await bench.key(organisation, models=["other"])) as narrow:
        with pytest.raises(openai.PermissionDeniedError):
            await narrow.chat.completions.create(model="tiny", messages=MESSAGES)
        assert [model async for model in narrow.models.list()] == []


async def test_a_stream_that_fails_raises_in_the_client(bench, client, script):
    async def half(stream, body):
        await stream.send_head(Head(status=200, headers=script.sse))
        await stream.send(script.chunk("half"))
        await asyncio.sleep(0.05)
        stream.reset(script.reset.ENGINE_ERROR)

    (node,) = bench.nodes.values()
    node.script = half
    words = []

    async def listen():
        async for event in await client.chat.completions.create(model="tiny", messages=MESSAGES, stream=True):
            words.extend(choice.delta.content for choice in event.choices)

    with pytest.raises(openai.APIError) as caught:
        await listen()
    assert words == ["half"]
    assert caught.value.code == "engine_error"
    assert [record.outcome for record in await bench.usage(1)] == ["engine_error"]


async def test_a_nodes_refusal_keeps_its_code(bench, client, script):
    async def warming(stream, body):
        await stream.send_head(Head(status=503, headers=(*script.json, ("retry-after", "7"))))
        body = (
            b'{"error":{"message":"downloading, 12 %","type":"service_unavailable","code":"model_warming"}}'
        )
        await stream.send(body, fin=True, trailers=Trailers())

    (node,) = bench.nodes.values()
    node.script = warming
    with pytest.raises(openai.InternalServerError) as caught:
        await client.chat.completions.create(model="tiny", messages=MESSAGES)
    assert (caught.value.code, caught.value.response.headers["retry-after"]) == ("model_warming", "7")
    assert "12 %" in caught.value.body["message"]
