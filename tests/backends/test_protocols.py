"""What every backend says it speaks, it speaks: shown on the real engine, with the official clients."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import anthropic
import httpx
import openai
import pytest
import pytest_asyncio
from openai.types.responses import FunctionToolParam

from runtime.api_paths import PROTOCOLS
from runtime.closing import closing_of
from runtime.envelope import from_engine
from runtime.usage import BodyEnds, TokenUsage, find_usage

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(300)]

MODEL_ID = "smollm2-135m-instruct"
RESPONSES, MESSAGES, RERANK = "/v1/responses", "/v1/messages", "/v1/rerank"
PATHS = [RESPONSES, MESSAGES]
PARAMETERS = {
    "type": "object",
    "properties": {"city": {"type": "string", "enum": ["Paris", "Rome"]}},
    "required": ["city"],
    "additionalProperties": False,
}
QUERY = "what is a cat"
TEXTS = ["a cat", "a dog is not it", "rome"]


def body(path: str, prompt: str = "Name a colour.", tokens: int = 16, **options: object) -> dict[str, object]:
    if path == RESPONSES:
        return {"model": MODEL_ID, "input": prompt, "max_output_tokens": tokens, "temperature": 0, **options}
    messages = [{"role": "user", "content": prompt}]
    return {"model": MODEL_ID, "messages": messages, "max_tokens": tokens, "temperature": 0, **options}


def speaks(engine: Any, path: str) -> bool:
    return PROTOCOLS[path] in engine.endpoint.protocols


async def is_refused(engine: Any, path: str) -> None:
    """What an engine does not say that it speaks, it does not: nothing is kept from callers."""
    answered = await engine.client.post(path, json=body(path))
    said = from_engine(answered.status_code, answered.content)
    assert (said.status, said.code) == (400, "unsupported_parameter")


@pytest_asyncio.fixture(loop_scope="module")
async def gpt(engine: Any) -> AsyncIterator[openai.AsyncOpenAI]:
    key = dict(engine.endpoint.headers)["authorization"].removeprefix("Bearer ")
    url = f"{engine.client.base_url}/v1/"
    async with openai.AsyncOpenAI(base_url=url, api_key=key, max_retries=0, timeout=250) as client:
        yield client


@pytest_asyncio.fixture(loop_scope="module")
async def claude(engine: Any) -> AsyncIterator[anthropic.AsyncAnthropic]:
    key = dict(engine.endpoint.headers)["authorization"].removeprefix("Bearer ")
    url = str(engine.client.base_url)
    async with anthropic.AsyncAnthropic(base_url=url, auth_token=key, max_retries=0, timeout=250) as client:
        yield client


@pytest.mark.parametrize("path", PATHS)
async def test_it_speaks_what_it_says_and_nothing_else(engine: Any, path: str) -> None:
    answered = await engine.client.post(path, json=body(path))
    if speaks(engine, path):
        assert answered.status_code == 200, answered.text
    else:
        await is_refused(engine, path)


@pytest.mark.parametrize("path", PATHS)
async def test_an_answer_is_counted_whole_and_streamed(engine: Any, path: str) -> None:
    if not speaks(engine, path):
        await is_refused(engine, path)
        return
    whole = await engine.client.post(path, json=body(path, tokens=8))
    counted = _counted(path, whole.content, streamed=False)
    async with engine.client.stream("POST", path, json=body(path, tokens=8, stream=True)) as response:
        events = await response.aread()
    streamed = _counted(path, events, streamed=True)
    assert counted.prompt_tokens == streamed.prompt_tokens > 8
    assert 0 < counted.completion_tokens <= 8
    assert 0 < streamed.completion_tokens <= 8
    assert b"[DONE]" not in events


def _counted(path: str, content: bytes, *, streamed: bool) -> TokenUsage:
    """What the node reads out of an answer, which it must also know to be whole."""
    ends = BodyEnds(closing_of(path))
    for start in range(0, len(content), 100):
        ends.add(content[start : start + 100])
    found = find_usage(ends, streamed=streamed)
    assert found is not None, content
    assert ends.is_whole or not streamed
    return found


async def test_openais_client_reads_its_responses(engine: Any, gpt: openai.AsyncOpenAI) -> None:
    if not speaks(engine, RESPONSES):
        await is_refused(engine, RESPONSES)
        return
    ask = {"model": MODEL_ID, "input": "Name a colour.", "max_output_tokens": 16, "temperature": 0}
    said = await gpt.responses.create(**ask)
    assert said.output_text
    assert said.usage is not None
    assert said.usage.output_tokens <= 16
    stream = await gpt.responses.create(**ask, stream=True)
    kinds = [event.type async for event in stream]
    assert kinds[0] == "response.created"
    assert kinds.count("response.output_text.delta") > 3
    assert kinds[-1] in ("response.completed", "response.incomplete")


async def test_anthropics_client_reads_its_messages(engine: Any, claude: anthropic.AsyncAnthropic) -> None:
    if not speaks(engine, MESSAGES):
        await is_refused(engine, MESSAGES)
        return
    talk = [{"role": "user", "content": "Name a colour."}]
    ask = {"model": MODEL_ID, "max_tokens": 16, "messages": talk, "extra_body": {"temperature": 0}}
    said = await claude.messages.create(**ask)
    assert said.content[0].text
    assert said.stop_reason in ("end_turn", "max_tokens")
    async with claude.messages.stream(**ask) as stream:
        texts = [text async for text in stream.text_stream]
        whole = await stream.get_final_message()
    assert len(texts) > 3
    assert whole.content[0].text == "".join(texts)
    assert 0 < whole.usage.output_tokens <= 16


async def test_a_tool_is_called_in_a_response(engine: Any, gpt: openai.AsyncOpenAI) -> None:
    """After a talk in which it was used already: so small a model needs to be shown."""
    if not speaks(engine, RESPONSES):
        await is_refused(engine, RESPONSES)
        return
    talk: list[Any] = []
    for number, city in enumerate(("Rome", "Paris", "Rome")):
        arguments = json.dumps({"city": city})
        call = {"call_id": f"call_{number}", "name": "weather", "arguments": arguments}
        talk += [
            {"role": "user", "content": f"What is the weather in {city}?"},
            {"type": "function_call", **call},
            {"type": "function_call_output", "call_id": f"call_{number}", "output": "sunny"},
        ]
    tool = FunctionToolParam(type="function", name="weather", parameters=PARAMETERS, strict=True)
    said = await gpt.responses.create(
        model=MODEL_ID,
        input=[*talk, {"role": "user", "content": "What is the weather in Paris?"}],
        tools=[tool],
        tool_choice="required",
        temperature=0,
        max_output_tokens=96,
    )
    (made,) = [item for item in said.output if item.type == "function_call"]
    assert made.name == "weather"
    assert json.loads(made.arguments)["city"] in ("Paris", "Rome")


async def test_a_tool_is_called_in_a_message(engine: Any, claude: anthropic.AsyncAnthropic) -> None:
    if not speaks(engine, MESSAGES):
        await is_refused(engine, MESSAGES)
        return
    talk: list[Any] = []
    for number, city in enumerate(("Rome", "Paris", "Rome")):
        use = {"type": "tool_use", "id": f"call_{number}", "name": "weather", "input": {"city": city}}
        result = {"type": "tool_result", "tool_use_id": f"call_{number}", "content": "sunny"}
        talk += [
            {"role": "user", "content": f"What is the weather in {city}?"},
            {"role": "assistant", "content": [use]},
            {"role": "user", "content": [result]},
            {"role": "assistant", "content": "It is sunny."},
        ]
    said = await claude.messages.create(
        model=MODEL_ID,
        max_tokens=96,
        messages=[*talk, {"role": "user", "content": "What is the weather in Paris?"}],
        tools=[{"name": "weather", "description": "The weather in a city.", "input_schema": PARAMETERS}],
        tool_choice={"type": "any"},
        extra_body={"temperature": 0},
    )
    (made,) = [block for block in said.content if block.type == "tool_use"]
    assert (made.name, said.stop_reason) == ("weather", "tool_use")
    assert made.input["city"] in ("Paris", "Rome")


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("stream", [False, True])
async def test_a_prompt_beyond_the_context_is_refused_as_such(engine: Any, path: str, stream: bool) -> None:
    if not speaks(engine, path):
        await is_refused(engine, path)
        return
    refused = await engine.client.post(path, json=body(path, "word " * 2000, stream=stream))
    said = from_engine(refused.status_code, refused.content)
    assert (said.status, said.code) == (400, "context_length_exceeded"), refused.text


@pytest.mark.parametrize("path", PATHS)
async def test_a_picture_for_a_model_that_sees_none_is_refused_as_such(engine: Any, path: str) -> None:
    if not speaks(engine, path):
        await is_refused(engine, path)
        return
    source = {"type": "base64", "media_type": "image/png", "data": "AAAA"}
    shown = {"type": "input_image", "image_url": "data:image/png;base64,AAAA"}
    said = {
        RESPONSES: {"input": [{"role": "user", "content": [shown]}]},
        MESSAGES: {"messages": [{"role": "user", "content": [{"type": "image", "source": source}]}]},
    }
    refused = await engine.client.post(path, json={**body(path), **said[path]})
    told = from_engine(refused.status_code, refused.content)
    assert (told.status, told.code) == (400, "unsupported_parameter"), refused.text


@pytest.mark.parametrize("path", PATHS)
async def test_a_closed_connection_frees_the_slot(engine: Any, path: str) -> None:
    if not speaks(engine, path):
        await is_refused(engine, path)
        return
    endless = body(path, tokens=900, stream=True, ignore_eos=True)
    async with engine.client.stream("POST", path, json=endless) as response:
        await anext(response.aiter_bytes())
    async with asyncio.timeout(5):
        while await engine.busy():
            await asyncio.sleep(0.05)


@pytest.mark.parametrize("path", PATHS)
async def test_its_log_holds_nothing_of_what_was_asked_or_answered(engine: Any, path: str) -> None:
    marker = "XYLOPHONEMARKER"
    for asked in (
        body(path, marker),
        body(path, f"{marker} " * 2000),
        {"model": MODEL_ID, "input": {marker: 1}},
    ):
        await engine.client.post(path, json=asked)
    await engine.client.post(path, content=b'{"input": "XYLOPHONEMARKER')
    assert engine.process.alive
    assert marker not in engine.process.log.read_text("utf-8", "replace")


async def test_it_ranks_if_it_says_so(engine: Any, case: Any, start_ranking: Any) -> None:
    """Every engine finds the same order: the weights are the same in every format."""
    if "rerank" not in case.backend.tasks:
        await is_refused(engine, RERANK)
        return
    async with start_ranking() as engine:

        async def rank(texts: list[str], **options: object) -> httpx.Response:
            asked = {"model": "ranker", "query": QUERY, "documents": texts, **options}
            answered: httpx.Response = await engine.client.post(RERANK, json=asked)
            return answered

        whole = (await rank(TEXTS)).json()
        assert [result["index"] for result in whole["results"]] == [2, 1, 0]
        scores = {result["index"]: result["relevance_score"] for result in whole["results"]}
        assert list(scores.values()) == sorted(scores.values(), reverse=True)
        assert whole["usage"]["prompt_tokens"] == whole["usage"]["total_tokens"] > 50
        best = (await rank(TEXTS, top_n=1)).json()["results"]
        assert [result["index"] for result in best] == [2]
        for index, text in enumerate(TEXTS):
            (alone,) = (await rank([text])).json()["results"]
            assert alone["relevance_score"] == pytest.approx(scores[index], abs=0.01)
        for wrong in (await rank(["a " * 600, "b"]), await rank([])):
            refused = from_engine(wrong.status_code, wrong.content)
            assert refused.status == 400, wrong.text
        assert (await rank(TEXTS)).status_code == 200
