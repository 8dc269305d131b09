"""Responses, Messages and rankings by their official clients, over a real Hub, node, engine and models."""

import asyncio
import base64
import json
import os
import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import anthropic
import httpx
import openai
import psutil
import pytest
import pytest_asyncio

from benchmarks.stacks.stack import MODEL, SharedData, Stack, run_stack
from models.catalog import load_catalog
from models.store import ModelStore
from tests.backends import ranker

pytestmark = pytest.mark.asyncio(loop_scope="module")
CATALOG = """
[[models]]
id = "tool-user"
name = "A model with tools"
context_length = 1024
slots = 4
capabilities = ["chat", "completions", "tools"]
chat_template = {template}
source = {{ kind = "path", path = "{weights}" }}

[[models]]
id = "seeing"
name = "A model of which its catalog says too much: it sees nothing"
context_length = 1024
slots = 4
capabilities = ["chat", "vision"]
source = {{ kind = "path", path = "{weights}" }}

[[models]]
id = "ranker"
name = "A model that ranks"
context_length = 512
slots = 2
capabilities = ["rerank"]
source = {{ kind = "path", path = "{ranker}" }}
"""
MIB = 1024 * 1024
SECRET = "the-heron-waits-at-dusk"
PARAMETERS = {"type": "object", "properties": {"city": {"type": "string", "enum": ["Rome", "Paris"]}}}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stack(tmp_path_factory: pytest.TempPathFactory, shared_data: Path) -> AsyncIterator[Stack]:
    """A Hub and a node with models of their own, whose weights stay where they are."""
    folder = tmp_path_factory.mktemp("protocols")
    stored = ModelStore(shared_data / "models").find(load_catalog().require(MODEL))
    assert stored is not None
    (folder / "data").mkdir()
    (folder / "data" / "engines").symlink_to(shared_data / "engines")
    catalog = folder / "catalog.toml"
    template = (Path(__file__).parents[1] / "backends" / "tools.jinja").read_text()
    ranking = ranker.write_gguf(folder / "ranker.gguf")
    catalog.write_text(
        CATALOG.format(template=json.dumps(template), weights=stored.path.resolve(), ranker=ranking)
    )
    settings = {"PORTEN_CATALOG": str(catalog), "PORTEN_MODELS": "tool-user,seeing,ranker"}
    async with run_stack(
        folder,
        SharedData(folder / "data"),
        node_settings=settings,
        hub_settings={"PORTEN_HUB_CATALOG": str(catalog)},
    ) as running:
        yield running


@pytest_asyncio.fixture(loop_scope="module")
async def claude(stack: Stack) -> AsyncIterator[anthropic.AsyncAnthropic]:
    """Anthropic's client as its users set it up: it sends the key as `x-api-key`."""
    url = stack.base_url.removesuffix("/v1")
    async with anthropic.AsyncAnthropic(
        base_url=url, api_key=stack.api_key, max_retries=0, timeout=120
    ) as official:
        yield official


def counted(stack: Stack, request_id: str) -> tuple[int, int, str]:
    """Prompt and completion tokens of a request, and its outcome, as the Hub wrote them down."""
    with sqlite3.connect(f"file:{stack.hub.data / 'hub.db'}?mode=ro", uri=True) as database:
        query = "SELECT prompt_tokens, completion_tokens, outcome FROM usage_records WHERE request_id = ?"
        row: tuple[int, int, str] = database.execute(query, (request_id,)).fetchone()
    return row


async def until_counted(stack: Stack, request_id: str) -> tuple[int, int, str]:
    async with asyncio.timeout(20):
        while (found := await asyncio.to_thread(counted, stack, request_id)) is None:
            await asyncio.sleep(0.05)
    return found


async def test_a_response_is_answered_and_counted(client: openai.AsyncOpenAI, stack: Stack) -> None:
    raw = await client.responses.with_raw_response.create(
        model="tool-user", input="Say hello.", max_output_tokens=12
    )
    said = raw.parse()
    assert said.output_text
    assert said.usage is not None
    assert await until_counted(stack, raw.headers["x-request-id"]) == (
        said.usage.input_tokens,
        said.usage.output_tokens,
        "ok",
    )
    assert raw.headers["x-porten-region"] == "eu-de"


async def test_a_response_is_streamed_and_counted(client: openai.AsyncOpenAI, stack: Stack) -> None:
    raw = await client.responses.with_raw_response.create(
        model="tool-user", input="Say hello.", max_output_tokens=12, temperature=0, stream=True
    )
    events: list[Any] = [event async for event in raw.parse()]
    assert [event.type for event in events].count("response.output_text.delta") > 3
    assert events[-1].type in ("response.completed", "response.incomplete")
    usage = events[-1].response.usage
    recorded = await until_counted(stack, raw.headers["x-request-id"])
    assert recorded == (usage.input_tokens, usage.output_tokens, "ok")


async def test_a_message_is_answered_and_counted(claude: anthropic.AsyncAnthropic, stack: Stack) -> None:
    raw = await claude.messages.with_raw_response.create(
        model="tool-user", max_tokens=12, messages=[{"role": "user", "content": "Say hello."}]
    )
    said = await _parsed(raw)
    assert said.content[0].text
    prompt = said.usage.input_tokens + (said.usage.cache_read_input_tokens or 0)
    recorded = await until_counted(stack, raw.headers["x-request-id"])
    assert recorded == (prompt, said.usage.output_tokens, "ok")


async def _parsed(raw: Any) -> Any:
    parsed = raw.parse()
    return await parsed if asyncio.iscoroutine(parsed) else parsed


async def test_a_message_is_streamed_and_counted(claude: anthropic.AsyncAnthropic, stack: Stack) -> None:
    async with claude.messages.stream(
        model="tool-user",
        max_tokens=12,
        messages=[{"role": "user", "content": "Say hello."}],
        extra_body={"temperature": 0},
    ) as stream:
        texts = [text async for text in stream.text_stream]
        whole = await stream.get_final_message()
        request_id = stream.response.headers["x-request-id"]
    assert len(texts) > 3
    prompt, completion, outcome = await until_counted(stack, request_id)
    assert (completion, outcome) == (whole.usage.output_tokens, "ok")
    assert prompt == whole.usage.input_tokens + (whole.usage.cache_read_input_tokens or 0)


async def test_tools_are_called_in_both(client: openai.AsyncOpenAI, claude: anthropic.AsyncAnthropic) -> None:
    calls: list[Any] = []
    uses: list[Any] = []
    for number, city in enumerate(("Rome", "Paris", "Rome")):
        question = {"role": "user", "content": f"What is the weather in {city}?"}
        call = {"call_id": f"c{number}", "name": "weather", "arguments": json.dumps({"city": city})}
        calls += [question, {"type": "function_call", **call}]
        calls.append({"type": "function_call_output", "call_id": f"c{number}", "output": "sunny"})
        use = {"type": "tool_use", "id": f"c{number}", "name": "weather", "input": {"city": city}}
        result = {"type": "tool_result", "tool_use_id": f"c{number}", "content": "sunny"}
        uses += [question, {"role": "assistant", "content": [use]}, {"role": "user", "content": [result]}]
        uses.append({"role": "assistant", "content": "It is sunny."})
    last: Any = {"role": "user", "content": "What is the weather in Paris?"}
    said = await client.responses.create(
        model="tool-user",
        input=[*calls, last],
        tools=[{"type": "function", "name": "weather", "parameters": PARAMETERS, "strict": False}],
        tool_choice="required",
        temperature=0,
        max_output_tokens=96,
    )
    assert [item.name for item in said.output if item.type == "function_call"] == ["weather"]
    told = await claude.messages.create(
        model="tool-user",
        max_tokens=96,
        messages=[*uses, last],
        tools=[{"name": "weather", "input_schema": PARAMETERS}],
        tool_choice={"type": "any"},
        extra_body={"temperature": 0},
    )
    assert [block.name for block in told.content if block.type == "tool_use"] == ["weather"]


async def test_schemas_and_log_probabilities_pass(client: openai.AsyncOpenAI) -> None:
    schema = {"type": "object", "properties": {"colour": {"enum": ["red", "blue"]}}, "required": ["colour"]}
    said = await client.chat.completions.create(
        model="tool-user",
        messages=[{"role": "user", "content": "A colour?"}],
        response_format={"type": "json_schema", "json_schema": {"name": "colour", "schema": schema}},
        logprobs=True,
        top_logprobs=2,
        max_tokens=48,
    )
    choice = said.choices[0]
    assert json.loads(choice.message.content or "")["colour"] in ("red", "blue")
    assert choice.logprobs is not None
    assert choice.logprobs.content
    assert len(choice.logprobs.content[0].top_logprobs) == 2


async def test_what_only_the_engine_can_judge_comes_back_in_each_clients_words(
    client: openai.AsyncOpenAI, claude: anthropic.AsyncAnthropic
) -> None:
    with pytest.raises(openai.BadRequestError) as response:
        await client.responses.create(model="tool-user", input="word " * 3000)
    with pytest.raises(anthropic.BadRequestError) as message:
        await claude.messages.create(
            model="tool-user", max_tokens=4, messages=[{"role": "user", "content": "word " * 3000}]
        )
    body: Any = message.value.body
    assert response.value.code == body["error"]["code"] == "context_length_exceeded"


async def test_texts_are_ranked_in_parts_and_counted(http: httpx.AsyncClient, stack: Stack) -> None:
    texts = ["a cat", "a dog is not it", "rome", "a bird", "nothing at all"]
    asked = {"model": "ranker", "query": "what is a cat", "documents": texts}
    whole = (await http.post("/rerank", json=asked)).json()
    assert sorted(result["index"] for result in whole["results"]) == [0, 1, 2, 3, 4]
    scores = {result["index"]: result["relevance_score"] for result in whole["results"]}
    assert list(scores.values()) == sorted(scores.values(), reverse=True)
    for index, text in enumerate(texts):
        alone = (await http.post("/rerank", json=asked | {"documents": [text]})).json()
        assert alone["results"][0]["relevance_score"] == pytest.approx(scores[index], abs=0.01)
    best = await http.post("/rerank", json=asked | {"top_n": 2})
    assert [result["index"] for result in best.json()["results"]] == list(scores)[:2]
    prompt, completion, outcome = await until_counted(stack, best.headers["x-request-id"])
    assert (prompt, completion, outcome) == (whole["usage"]["prompt_tokens"], 0, "ok")


@pytest.mark.parametrize(
    ("path", "content"),
    [
        ("/rerank", {"query": "q", "documents": []}),
        ("/rerank", {"query": "q", "documents": "a"}),
        ("/rerank", {"query": "q", "documents": [5]}),
        ("/rerank", {"query": 5, "documents": ["a"]}),
        ("/rerank", {"documents": ["a"]}),
        ("/rerank", {"query": "q", "documents": ["a"], "top_n": -1}),
        ("/rerank", {"query": "q", "documents": ["a"], "top_n": "two"}),
        ("/rerank", {"query": "q", "texts": ["a"]}),
        ("/rerank", {"query": "q", "documents": ["a"] * 2049}),
        ("/rerank", {"query": "q", "documents": ["a " * 600]}),
        ("/responses", {"input": 5}),
        ("/responses", {"input": {"a": SECRET}}),
        ("/responses", {}),
        ("/responses", {"input": [{"role": "user", "content": [{"type": "nonsense"}]}]}),
        ("/responses", {"input": "x", "tools": [{"type": "function"}]}),
        ("/messages", {"messages": 17, "max_tokens": 4}),
        ("/messages", {"messages": [17], "max_tokens": 4}),
        ("/messages", {"max_tokens": 4}),
    ],
)
async def test_bad_input_is_the_callers_fault_and_ends_nothing(
    http: httpx.AsyncClient, path: str, content: dict[str, object]
) -> None:
    model = "ranker" if path == "/rerank" else "tool-user"
    refused = await http.post(path, json={"model": model, **content})
    assert refused.status_code == 400, refused.text
    error = refused.json()["error"]
    assert error["type"] == "invalid_request_error"
    assert error["message"]
    assert refused.json()["request_id"] == refused.headers["x-request-id"]
    assert SECRET not in refused.text


class _Peak:
    """The most memory that processes took while it watched."""

    def __init__(self, **pids: int) -> None:
        self._processes = {name: psutil.Process(pid) for name, pid in pids.items()}
        self._before = {name: process.memory_info().rss for name, process in self._processes.items()}
        self.grown = dict.fromkeys(pids, 0)

    async def watch(self) -> None:
        while True:
            for name, process in self._processes.items():
                grown = process.memory_info().rss - self._before[name]
                self.grown[name] = max(self.grown[name], grown)
            await asyncio.sleep(0.005)


async def test_pictures_of_twenty_megabytes_pass_in_bounded_memory(
    http: httpx.AsyncClient, stack: Stack
) -> None:
    """The model sees nothing, which its engine says once it has it all: so much came through."""
    picture = base64.b64encode(os.urandom(15 * MIB)).decode()
    shown = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{picture}"}}
    body = {"model": "seeing", "messages": [{"role": "user", "content": [shown]}], "max_tokens": 4}
    content = json.dumps(body).encode()
    assert len(content) > 20 * MIB
    warm = {"model": "seeing", "messages": [{"role": "user", "content": "x"}], "max_tokens": 1}
    assert (await http.post("/chat/completions", json=warm)).status_code == 200
    at_once = 3
    hub, node = stack.hub.process.pid, stack.node.process.pid
    assert hub is not None
    assert node is not None
    peak = _Peak(hub=hub, node=node)
    watching = asyncio.create_task(peak.watch())
    answers = await asyncio.gather(*(http.post("/chat/completions", content=content) for _ in range(at_once)))
    watching.cancel()
    for answer in answers:
        error = answer.json()["error"]
        assert (answer.status_code, error["code"]) == (400, "unsupported_parameter"), answer.text[:500]
    # The Hub holds each body whole, twice for a moment, so that another node may be tried; the node none.
    assert peak.grown["hub"] < at_once * 50 * MIB
    assert peak.grown["node"] < 48 * MIB


async def test_nothing_of_what_was_said_is_in_a_log(http: httpx.AsyncClient, stack: Stack) -> None:
    for path, body in (
        ("/responses", {"input": SECRET, "max_output_tokens": 4}),
        ("/messages", {"messages": [{"role": "user", "content": SECRET}], "max_tokens": 4}),
    ):
        for stream in (False, True):
            answered = await http.post(path, json={"model": "tool-user", "stream": stream, **body})
            assert answered.status_code == 200
    ranked = {"model": "ranker", "query": SECRET, "documents": [SECRET]}
    assert (await http.post("/rerank", json=ranked)).status_code == 200
    for log in (stack.hub.log, stack.node.log):
        assert SECRET not in log.read_text(errors="replace")
