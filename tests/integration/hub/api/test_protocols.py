"""OpenAI's Responses and Anthropic's Messages with their makers' own clients; rankings; a real Hub."""

import asyncio
import json
from typing import Any

import anthropic
import httpx
import openai
import pytest

from hub.api import inference
from tunnel.errors import ResetCode
from tunnel.messages import Head, Trailers, Usage

RESPONSES, MESSAGES, RERANK = "/v1/responses", "/v1/messages", "/v1/rerank"
USED = Usage(prompt_tokens=13, cached_tokens=4, completion_tokens=2)
BOTH = ("chat", "messages", "responses")
PROMPT = [{"role": "user", "content": "a prompt that nobody may find"}]


def event(kind: str, **members: Any) -> bytes:
    return f"event: {kind}\ndata: {json.dumps({'type': kind, **members})}\n\n".encode()


def response(status: str = "completed", text: str = "one two") -> dict[str, Any]:
    content = [{"type": "output_text", "text": text, "annotations": []}]
    item = {"type": "message", "id": "msg_1", "role": "assistant", "status": status, "content": content}
    usage = {"input_tokens": 13, "input_tokens_details": {"cached_tokens": 4}, "output_tokens": 2}
    return {
        "id": "resp_1",
        "object": "response",
        "created_at": 1,
        "model": "tiny",
        "status": status,
        "output": [item],
        "parallel_tool_calls": True,
        "tool_choice": "auto",
        "tools": [],
        "usage": usage | {"total_tokens": 15, "output_tokens_details": {"reasoning_tokens": 0}},
    }


def message(**changes: Any) -> dict[str, Any]:
    content = [{"type": "text", "text": "one two"}]
    usage = {"input_tokens": 9, "cache_read_input_tokens": 4, "output_tokens": 2}
    return {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": "tiny",
        "content": content,
        "stop_reason": "end_turn",
        "stop_sequence": None,
        "usage": usage,
    } | changes


RESPONSE_EVENTS = [
    event("response.created", response=response("in_progress", ""), sequence_number=0),
    event("response.output_text.delta", item_id="msg_1", output_index=0, content_index=0, delta="one "),
    event("response.output_text.delta", item_id="msg_1", output_index=0, content_index=0, delta="two"),
    event("response.completed", response=response(), sequence_number=3),
]
MESSAGE_EVENTS = [
    event("message_start", message=message(content=[], stop_reason=None)),
    event("content_block_start", index=0, content_block={"type": "text", "text": ""}),
    event("content_block_delta", index=0, delta={"type": "text_delta", "text": "one "}),
    event("content_block_delta", index=0, delta={"type": "text_delta", "text": "two"}),
    event("content_block_stop", index=0),
    event("message_delta", delta={"stop_reason": "end_turn"}, usage={"output_tokens": 2}),
    event("message_stop"),
]


async def answer(stream: Any, body: dict[str, Any]) -> None:
    """As an engine that speaks both."""
    speaks_messages = stream.open.path == MESSAGES
    if not body.get("stream"):
        whole = message() if speaks_messages else response()
        await stream.send_head(Head(status=200, headers=(("content-type", "application/json"),)))
        await stream.send(json.dumps(whole).encode(), fin=True, trailers=Trailers(usage=USED))
        return
    events = MESSAGE_EVENTS if speaks_messages else RESPONSE_EVENTS
    await begin(stream)
    for each in events[:-1]:
        await stream.send(each)
    await stream.send(events[-1], fin=True, trailers=Trailers(usage=USED))


async def begin(stream: Any) -> None:
    await stream.send_head(Head(status=200, headers=(("content-type", "text/event-stream"),)))


async def lost(stream: Any, body: dict[str, Any]) -> None:
    """One event, and then the engine dies."""
    await begin(stream)
    await stream.send((MESSAGE_EVENTS if stream.open.path == MESSAGES else RESPONSE_EVENTS)[0])
    await asyncio.sleep(0.05)
    stream.reset(ResetCode.ENGINE_ERROR)


@pytest.fixture
async def node(bench: Any) -> Any:
    organisation = await bench.organisation()
    bench.secret = await bench.key(organisation)
    return await bench.node(organisation, script=answer, capabilities=BOTH)


@pytest.fixture
async def claude(bench: Any, node: Any) -> Any:
    async with anthropic.AsyncAnthropic(base_url=bench.url, api_key=bench.secret, max_retries=0) as client:
        yield client


@pytest.fixture
async def gpt(bench: Any, node: Any) -> Any:
    async with bench.client(bench.secret) as client:
        yield client


async def test_openais_client_gets_a_response_and_it_is_counted(bench: Any, node: Any, gpt: Any) -> None:
    said = await gpt.responses.create(model="tiny", input="hello", max_output_tokens=16)
    assert said.output_text == "one two"
    assert said.usage.output_tokens == 2
    (record,) = await bench.usage(1)
    assert (record.prompt_tokens, record.cached_tokens, record.completion_tokens) == (13, 4, 2)
    assert node.seen[0]["path"] == RESPONSES
    assert json.loads(node.seen[0]["body"]) == {"model": "tiny", "input": "hello", "max_output_tokens": 16}


async def test_openais_client_streams_a_response(bench: Any, gpt: Any) -> None:
    async with gpt.responses.stream(model="tiny", input="hello") as stream:
        kinds = [each.type async for each in stream]
        assert (await stream.get_final_response()).output_text == "one two"
    assert kinds[-1] == "response.completed"
    assert (await bench.usage(1))[0].completion_tokens == 2


async def test_anthropics_client_gets_a_message_and_it_is_counted(bench: Any, node: Any, claude: Any) -> None:
    said = await claude.messages.create(model="tiny", max_tokens=16, messages=PROMPT)
    assert said.content[0].text == "one two"
    assert said.usage.cache_read_input_tokens == 4
    (record,) = await bench.usage(1)
    assert (record.prompt_tokens, record.cached_tokens, record.completion_tokens) == (13, 4, 2)
    assert node.seen[0]["path"] == MESSAGES
    assert "x-api-key" not in node.seen[0]["headers"]


async def test_anthropics_client_streams_a_message(bench: Any, claude: Any) -> None:
    async with claude.messages.stream(model="tiny", max_tokens=16, messages=PROMPT) as stream:
        assert "".join([text async for text in stream.text_stream]) == "one two"
        assert (await stream.get_final_message()).stop_reason == "end_turn"
    assert (await bench.usage(1))[0].completion_tokens == 2


@pytest.mark.parametrize(("path", "events"), [(RESPONSES, RESPONSE_EVENTS), (MESSAGES, MESSAGE_EVENTS)])
async def test_a_stream_passes_as_the_engine_wrote_it(
    bench: Any, http: httpx.AsyncClient, node: Any, path: str, events: list[bytes]
) -> None:
    body = {"model": "tiny", "input": "x", "messages": PROMPT, "max_tokens": 4, "stream": True}
    got = await http.post(path, json=body, headers={"authorization": f"Bearer {bench.secret}"})
    assert got.content == b"".join(events)


async def test_long_silence_is_filled_with_what_both_clients_pass_over(
    bench: Any, node: Any, gpt: Any, claude: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inference, "KEEP_ALIVE_S", 0.02)

    async def thinks(stream: Any, body: dict[str, Any]) -> None:
        await asyncio.sleep(0.2)
        await answer(stream, body)

    node.script = thinks
    async with claude.messages.stream(model="tiny", max_tokens=16, messages=PROMPT) as stream:
        assert (await stream.get_final_message()).content[0].text == "one two"
    async with gpt.responses.stream(model="tiny", input="hello") as stream:
        assert (await stream.get_final_response()).output_text == "one two"


class TestFailures:
    async def test_anthropics_client_raises_its_own_errors(self, bench: Any, node: Any, claude: Any) -> None:
        ask = claude.messages.create
        with pytest.raises(anthropic.NotFoundError) as missing:
            await ask(model="unknown", max_tokens=4, messages=PROMPT)
        assert missing.value.body["error"]["code"] == "model_not_found"
        assert missing.value.body["request_id"] == missing.value.response.headers["x-request-id"]
        with pytest.raises(anthropic.BadRequestError):
            await ask(model="tiny", max_tokens=4, messages=PROMPT, extra_body={"mcp_servers": [{}]})
        stranger = claude.with_options(api_key="sk-porten-x")
        with pytest.raises(anthropic.AuthenticationError):
            await stranger.messages.create(model="tiny", max_tokens=4, messages=PROMPT)

    async def test_a_stream_that_breaks_raises_in_both_clients(
        self, bench: Any, node: Any, gpt: Any, claude: Any
    ) -> None:
        node.script = lost
        with pytest.raises(anthropic.APIStatusError, match="The engine on the node failed"):
            async with claude.messages.stream(model="tiny", max_tokens=16, messages=PROMPT) as stream:
                await stream.get_final_message()
        with pytest.raises(openai.APIError, match="The engine on the node failed"):
            async for _ in await gpt.responses.create(model="tiny", input="hello", stream=True):
                pass
        assert {record.outcome for record in await bench.usage(2)} == {"engine_error"}

    @pytest.mark.parametrize("path", [RESPONSES, MESSAGES])
    async def test_it_ends_with_one_error_and_nothing_after(
        self, bench: Any, http: httpx.AsyncClient, node: Any, path: str
    ) -> None:
        node.script = lost
        body = {"model": "tiny", "input": "x", "messages": PROMPT, "max_tokens": 4, "stream": True}
        got = await http.post(path, json=body, headers={"authorization": f"Bearer {bench.secret}"})
        assert got.content.count(b"event: error") == 1
        last = got.content.rstrip().rpartition(b"\n\n")[2]
        assert last.startswith(b"event: error\ndata: ")
        said = json.loads(last.partition(b"data: ")[2])
        assert (said["type"], said["error"]["code"]) == ("error", "engine_error")
        assert said["request_id"] == got.headers["x-request-id"]
        assert b"[DONE]" not in got.content

    async def test_state_that_nobody_keeps_is_refused_before_a_node_is_asked(
        self, node: Any, gpt: Any
    ) -> None:
        for said in ({"previous_response_id": "resp_1"}, {"store": True}, {"background": True}):
            with pytest.raises(openai.BadRequestError) as refused:
                await gpt.responses.create(model="tiny", input="hello", **said)
            assert (refused.value.code, refused.value.param) == ("unsupported_parameter", next(iter(said)))
        assert node.seen == []

    async def test_two_keys_are_refused(self, bench: Any, http: httpx.AsyncClient, node: Any) -> None:
        body = {"model": "tiny", "messages": PROMPT, "max_tokens": 4}
        other = await bench.key(await bench.organisation("Other"))
        key = {"authorization": f"Bearer {bench.secret}"}
        same = await http.post(MESSAGES, json=body, headers=key | {"x-api-key": bench.secret})
        both = await http.post(MESSAGES, json=body, headers=key | {"x-api-key": other})
        twice = await http.post(
            MESSAGES, json=body, headers=[("x-api-key", bench.secret), ("x-api-key", bench.secret)]
        )
        elsewhere = await http.post("/v1/chat/completions", json=body, headers={"x-api-key": bench.secret})
        assert [each.status_code for each in (same, both, twice, elsewhere)] == [200, 400, 400, 401]
        assert both.json()["error"]["code"] == twice.json()["error"]["code"] == "invalid_value"

    async def test_an_endpoint_that_no_engine_has_is_told_and_not_asked(
        self, bench: Any, http: httpx.AsyncClient
    ) -> None:
        organisation = await bench.organisation()
        mute = await bench.node(organisation)
        key = {"authorization": f"Bearer {await bench.key(organisation)}"}
        for path in (RESPONSES, MESSAGES):
            body = {"model": "tiny", "input": "x", "messages": PROMPT, "max_tokens": 4}
            refused = await http.post(path, json=body, headers=key)
            assert refused.status_code == 400
            assert refused.json()["error"]["code"] == "unsupported_parameter"
        assert mute.seen == []

    async def test_a_wrong_method_is_told_in_the_protocols_words(self, http: httpx.AsyncClient) -> None:
        refused = await http.get(MESSAGES)
        assert (refused.status_code, refused.json()["type"]) == (405, "error")


async def test_the_list_of_models_says_what_the_engines_speak(
    bench: Any, http: httpx.AsyncClient, node: Any
) -> None:
    listed = await http.get("/v1/models/tiny", headers={"authorization": f"Bearer {bench.secret}"})
    assert listed.json()["capabilities"] == ["chat", "completions", "messages", "responses"]


async def test_a_ranking_passes_and_is_counted(bench: Any, http: httpx.AsyncClient) -> None:
    async def ranks(stream: Any, body: dict[str, Any]) -> None:
        results = [{"index": 1, "relevance_score": 0.9}, {"index": 0, "relevance_score": 0.1}]
        whole = {"model": "ranker", "results": results, "usage": {"prompt_tokens": 7, "total_tokens": 7}}
        await stream.send_head(Head(status=200, headers=(("content-type", "application/json"),)))
        used = Usage(prompt_tokens=7, cached_tokens=0, completion_tokens=0)
        await stream.send(json.dumps(whole).encode(), fin=True, trailers=Trailers(usage=used))

    organisation = await bench.organisation()
    node = await bench.node(organisation, script=ranks, model="ranker", capabilities=("rerank",))
    key = {"authorization": f"Bearer {await bench.key(organisation)}"}
    asked = {"model": "ranker", "query": "q", "documents": ["a", "b"], "top_n": 2}
    ranked = await http.post(RERANK, json=asked, headers=key)
    assert [result["index"] for result in ranked.json()["results"]] == [1, 0]
    assert json.loads(node.seen[0]["body"]) == asked
    (record,) = await bench.usage(1)
    assert (record.prompt_tokens, record.completion_tokens) == (7, 0)
    for path, body in (("/v1/chat/completions", {"messages": PROMPT}), (RESPONSES, {"input": "x"})):
        refused = await http.post(path, json={"model": "ranker", **body}, headers=key)
        assert (refused.status_code, refused.json()["error"]["code"]) == (400, "unsupported_parameter")


@pytest.mark.parametrize("path", ["/v1/chat/completions", RESPONSES, MESSAGES])
async def test_pictures_for_a_model_that_sees_none_are_refused_before_a_node_is_asked(
    bench: Any, http: httpx.AsyncClient, node: Any, path: str
) -> None:
    url = "data:image/png;base64,AAAA"
    shown = {
        "/v1/chat/completions": {
            "messages": [{"content": [{"type": "image_url", "image_url": {"url": url}}]}]
        },
        RESPONSES: {"input": [{"content": [{"type": "input_image", "image_url": url}]}]},
        MESSAGES: {
            "messages": [{"content": [{"type": "image", "source": {"data": "AAAA"}}]}],
            "max_tokens": 4,
        },
    }
    body = {"model": "tiny", **shown[path]}
    refused = await http.post(path, json=body, headers={"authorization": f"Bearer {bench.secret}"})
    error = refused.json()["error"]
    assert (refused.status_code, error["code"], error["param"]) == (400, "unsupported_parameter", "messages")
    assert node.seen == []


async def test_a_request_may_want_to_be_over_sooner(bench: Any, http: httpx.AsyncClient, node: Any) -> None:
    async def thinks(stream: Any, body: dict[str, Any]) -> None:
        await asyncio.Event().wait()

    node.script = thinks
    key = {"authorization": f"Bearer {bench.secret}"}
    body = {"model": "tiny", "messages": PROMPT}
    late = await http.post("/v1/chat/completions", json=body, headers=key | {"x-porten-deadline": "0.2"})
    assert (late.status_code, late.json()["error"]["code"]) == (504, "deadline_exceeded")
    async with asyncio.timeout(5):
        await node.cancelled.wait()
    wrong = await http.post("/v1/chat/completions", json=body, headers=key | {"x-porten-deadline": "0"})
    assert (wrong.status_code, wrong.json()["error"]["param"]) == (400, "x-porten-deadline")


class TestShortDeadline:
    @pytest.fixture
    def settings(self) -> dict[str, Any]:
        return {"request_deadline_s": 0.3}

    async def test_no_request_makes_it_longer(self, bench: Any, http: httpx.AsyncClient, node: Any) -> None:
        async def thinks(stream: Any, body: dict[str, Any]) -> None:
            await asyncio.Event().wait()

        node.script = thinks
        key = {"authorization": f"Bearer {bench.secret}", "x-porten-deadline": "100000"}
        late = await http.post("/v1/chat/completions", json={"model": "tiny"}, headers=key)
        assert late.json()["error"]["code"] == "deadline_exceeded"
