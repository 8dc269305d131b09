"""What every backend must do, shown on the real engine: the node relies on each of these."""

import asyncio
import contextlib
import json
import math
import operator
import os
import pickle
import signal
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import msgspec
import psutil
import pytest

from runtime.backends.base import EngineOptions
from runtime.envelope import from_engine
from runtime.errors import EngineFailed
from runtime.launcher import Launcher
from runtime.usage import BodyEnds, TokenUsage, find_usage

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(300)]

MODEL_ID = "smollm2-135m-instruct"
EMBEDDING_LENGTH = 576
LONG = 900
"""Tokens of an answer that does not end by itself while a test looks on."""


async def eventually(condition: Any, within_s: float, every_s: float = 0.01) -> float:
    """Ask until it is so; returns the seconds it took."""
    began = time.monotonic()
    while not await condition():
        assert time.monotonic() - began < within_s, f"not so after {within_s} s"
        await asyncio.sleep(every_s)
    return time.monotonic() - began


async def test_it_answers_whole_and_counts_its_tokens(engine: Any) -> None:
    answer = (await engine.chat()).json()
    assert answer["choices"][0]["message"]["content"]
    usage = answer["usage"]
    assert usage["prompt_tokens"] > 0
    assert 0 < usage["completion_tokens"] <= 16
    assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]


async def test_it_streams_and_says_how_it_ended(engine: Any) -> None:
    chunks = await engine.chunks(**engine.endless(8))
    assert len(chunks) > 3
    reasons = [choice["finish_reason"] for chunk in chunks for choice in chunk["choices"]]
    assert [reason for reason in reasons if reason] == ["length"]


async def test_usage_is_there_whether_or_not_it_was_asked_for(engine: Any) -> None:
    asked = await engine.chunks(stream_options={"include_usage": True}, **engine.endless(16))
    assert asked[-1]["choices"] == []
    assert asked[-1]["usage"]["completion_tokens"] == 16
    unasked = await engine.events(**engine.endless(16))
    assert counted(unasked).completion_tokens == 16
    assert b'"choices":[]' not in unasked, "a chunk without choices that nobody asked for"
    assert all(chunk["choices"] for chunk in await engine.chunks())


def counted(body: bytes) -> TokenUsage:
    """What the node reads out of a streamed answer."""
    ends = BodyEnds()
    ends.add(body)
    found = find_usage(ends, streamed=True)
    assert found is not None
    return found


async def test_it_is_closed_to_whoever_lacks_the_key(engine: Any) -> None:
    for headers in ({}, {"authorization": "Bearer wrong"}):
        async with httpx.AsyncClient(base_url=engine.client.base_url, headers=headers) as stranger:
            assert (await stranger.post("/v1/chat/completions", json=engine.body())).status_code == 401
            assert (await stranger.get("/metrics")).status_code == 401
            assert (await stranger.get("/v1/models")).status_code == 401
    assert not any("Bearer" in part for part in psutil.Process(engine.process.pid).cmdline())


async def test_it_listens_on_loopback_only(engine: Any) -> None:
    processes = [psutil.Process(pid) for pid in engine.process.pids()]
    listening = [c for p in processes for c in p.net_connections() if c.status == psutil.CONN_LISTEN]
    assert {connection.laddr.ip for connection in listening} == {"127.0.0.1"}


async def test_as_many_at_once_as_it_has_slots_share_the_engine(engine: Any) -> None:
    slots = engine.plan.slots
    arrivals: list[int] = []

    async def one(number: int) -> None:
        async with engine.stream(f"Count from {number}.", **engine.endless(24)) as response:
            async for line in response.aiter_lines():
                arrivals.extend([number] * line.startswith("data: "))

    await asyncio.gather(*(one(number) for number in range(slots)))
    first_end = min(len(arrivals) - 1 - arrivals[::-1].index(number) for number in range(slots))
    assert set(arrivals[:first_end]) == set(range(slots)), "one was answered whole before another began"
    await eventually(lambda: _is_idle(engine), within_s=1.0)


async def test_a_closed_connection_frees_the_slot_within_a_second(engine: Any) -> None:
    async with engine.stream(**engine.endless(LONG)) as response:
        lines = response.aiter_lines()
        await anext(lines)
        assert await engine.busy() == 1
    await eventually(lambda: _is_idle(engine), within_s=1.0)


async def test_an_answer_that_is_not_streamed_is_given_up_too(engine: Any) -> None:
    """llama.cpp looks whether anybody still listens only after a second without any result, of any request:
    ours, which ask for its slots, count too, so this asks seldom. An engine that is busy with others carries
    such a request to its end."""
    asking = asyncio.create_task(engine.chat(**engine.endless(LONG)))
    await eventually(lambda: _is_busy(engine), within_s=10.0)
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    await asyncio.sleep(1.5)
    await eventually(lambda: _is_idle(engine), within_s=5.0, every_s=1.5)


async def _is_idle(engine: Any) -> bool:
    return bool(await engine.busy() == 0)


async def _is_busy(engine: Any) -> bool:
    return bool(await engine.busy() > 0)


async def test_every_slot_has_the_whole_context(engine: Any) -> None:
    """As many requests as there are slots, each with a prompt and an answer that fill its context."""
    length = engine.plan.context_length

    async def fill(number: int) -> int:
        answer = (await engine.chat(f"{number} " + "word " * (length * 3 // 4), max_tokens=32)).json()
        return int(answer["usage"]["prompt_tokens"])

    prompts = await asyncio.gather(*(fill(number) for number in range(engine.plan.slots)))
    assert min(prompts) > length * 3 // 4


async def test_a_prompt_beyond_the_context_is_refused_as_such(engine: Any) -> None:
    refused = await engine.chat("word " * 2000)
    answer = from_engine(refused.status_code, refused.content)
    assert (answer.status, answer.code) == (400, "context_length_exceeded")
    assert "word word" not in answer.message


TOOL = {
    "name": "weather",
    "description": "The weather in a city.",
    "parameters": {
        "type": "object",
        "properties": {"city": {"type": "string", "enum": ["Paris", "Rome"]}},
        "required": ["city"],
        "additionalProperties": False,
    },
}


def talk_with_tools() -> list[dict[str, object]]:
    """A talk in which the tool was used twice already: so small a model needs to be shown."""

    def turn(number: int, city: str) -> list[dict[str, object]]:
        function = {"name": "weather", "arguments": json.dumps({"city": city})}
        call = {"id": f"call_{number}", "type": "function", "function": function}
        return [
            {"role": "user", "content": f"What is the weather in {city}?"},
            {"role": "assistant", "content": "", "tool_calls": [call]},
            {"role": "tool", "tool_call_id": call["id"], "content": "sunny"},
            {"role": "assistant", "content": "It is sunny."},
        ]

    return [*turn(1, "Rome"), *turn(2, "Paris"), {"role": "user", "content": "What is the weather in Rome?"}]


async def test_a_tool_is_called(engine: Any) -> None:
    tools = [{"type": "function", "function": TOOL}]
    for choice in engine.case.tool_choices:
        options = {"messages": talk_with_tools(), "tools": tools, "tool_choice": choice, "temperature": 0}
        answer = (await engine.chat(**options, max_tokens=96)).json()
        assert answer["choices"][0]["finish_reason"] == "tool_calls", choice
        (call,) = answer["choices"][0]["message"]["tool_calls"]
        assert (call["type"], call["function"]["name"]) == ("function", "weather")
        assert json.loads(call["function"]["arguments"])["city"] in ("Paris", "Rome")


async def test_a_streamed_tool_call_adds_up(engine: Any) -> None:
    tools = [{"type": "function", "function": TOOL}]
    choice = engine.case.tool_choices[0]
    options = {"messages": talk_with_tools(), "tools": tools, "tool_choice": choice, "temperature": 0}
    chunks = await engine.chunks(**options, max_tokens=96)
    deltas = [choice["delta"] for chunk in chunks for choice in chunk["choices"]]
    calls = [call["function"] for delta in deltas for call in delta.get("tool_calls") or []]
    assert "".join(call.get("name") or "" for call in calls) == "weather"
    assert json.loads("".join(call.get("arguments") or "" for call in calls))["city"] in ("Paris", "Rome")


async def test_an_answer_keeps_to_its_schema(engine: Any) -> None:
    schema = {
        "type": "object",
        "properties": {"colour": {"type": "string", "enum": ["red", "blue"]}},
        "required": ["colour"],
        "additionalProperties": False,
    }
    wanted = {"type": "json_schema", "json_schema": {"name": "colour", "strict": True, "schema": schema}}
    answer = (await engine.chat("A colour?", response_format=wanted, max_tokens=64)).json()
    assert json.loads(answer["choices"][0]["message"]["content"])["colour"] in ("red", "blue")


@pytest.mark.parametrize(
    "options",
    [
        {"response_format": {"type": "json_schema", "json_schema": {"name": "a", "schema": {"type": "no"}}}},
        {
            "response_format": {
                "type": "json_schema",
                "json_schema": {"name": "a", "schema": {"type": "string", "pattern": r"^[\d]{3}$"}},
            }
        },
        {
            "tools": [{"type": "function", "function": TOOL | {"name": 'a"b'}}],
            "tool_choice": {"type": "function", "function": {"name": 'a"b'}},
        },
    ],
    ids=["an unknown type", "a pattern that no grammar has", "a tool with a quote in its name"],
)
async def test_what_it_cannot_keep_to_ends_no_engine(engine: Any, options: dict[str, object]) -> None:
    await engine.chat(max_tokens=8, **options)
    assert engine.process.alive
    assert (await engine.chat()).status_code == 200


IMAGE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}


@pytest.mark.parametrize(
    "wrong",
    [
        pytest.param({"messages": [{"role": "user", "content": [IMAGE]}]}, id="a picture for a text model"),
        pytest.param({"messages": [{"content": "Who says this?"}]}, id="a message of nobody"),
        pytest.param({"tools": [{"type": "function"}], "tool_choice": "auto"}, id="a tool without a name"),
    ],
)
async def test_what_is_wrong_with_a_request_is_said_to_be(engine: Any, wrong: dict[str, object]) -> None:
    refused = await engine.chat(**wrong)
    answer = from_engine(refused.status_code, refused.content)
    assert (answer.status, answer.type) == (400, "invalid_request_error"), refused.text
    assert (await engine.chat()).status_code == 200


async def test_its_log_holds_nothing_of_what_was_asked_or_answered(engine: Any) -> None:
    marker = "XYLOPHONEMARKER"
    await engine.chat(f"Repeat: {marker}")
    await engine.chunks(f"Repeat: {marker}")
    await engine.chat(f"{marker} " * 2000)
    broken = (b'{"messages": "XYLOPHONEMARKER', b'{"messages": {"XYLOPHONEMARKER": 1}}', b"XYLOPHONEMARKER")
    for content in broken:
        refused = await engine.client.post("/v1/chat/completions", content=content)
        assert refused.status_code >= 400
    await engine.chat(grammar=marker)
    await engine.client.get(f"/{marker}")
    assert engine.process.alive
    assert marker not in engine.process.log.read_text("utf-8", "replace")


async def test_its_memory_is_what_was_estimated(engine: Any) -> None:
    """The estimate is within 15 % of what is taken, and never under it by more than 5 %."""
    await asyncio.gather(*(engine.chat("tell a story " * 30) for _ in range(8)))
    taken = memory_of(engine.process.pids())
    assert 0.95 * taken <= engine.plan.memory.total <= 1.15 * taken


def memory_of(pids: Sequence[int]) -> int:
    """Bytes of processes that share libraries and weights with each other, and perhaps with others."""
    uses = [psutil.Process(pid).memory_full_info() for pid in pids]
    return sum(use.uss for use in uses) + max(use.rss - use.uss for use in uses)


async def test_it_embeds(start_embedding: Any) -> None:
    """Texts become vectors of one length, alike where the texts are; they are counted, up to the context."""
    async with start_embedding() as engine:

        async def embed(*texts: str) -> httpx.Response:
            return await engine.client.post("/v1/embeddings", json={"model": MODEL_ID, "input": list(texts)})

        answer = (await embed("A red rose.", "The price of oil rose by nine per cent.", "A red rose.")).json()
        rose, oil, again = (item["embedding"] for item in answer["data"])
        assert len(rose) == len(oil) == EMBEDDING_LENGTH
        assert likeness(rose, again) > 0.999 > likeness(rose, oil)
        assert math.hypot(*rose) == pytest.approx(1, abs=0.01)
        assert 0 < answer["usage"]["prompt_tokens"] == answer["usage"]["total_tokens"]
        long = "word " * (engine.plan.context_length - 16)
        many = await asyncio.gather(*(embed(f"{number} {long}") for number in range(2)))
        assert {len(answer.json()["data"][0]["embedding"]) for answer in many} == {EMBEDDING_LENGTH}
        taken = memory_of(engine.process.pids())
        assert 0.95 * taken <= engine.plan.memory.total <= 1.15 * taken
        refused = await embed("word " * 2000)
        assert from_engine(refused.status_code, refused.content).status == 400, refused.text
        assert (await embed("Still here.")).status_code == 200


def likeness(one: Sequence[float], other: Sequence[float]) -> float:
    """The cosine of the angle between two vectors."""
    return sum(map(operator.mul, one, other)) / (math.hypot(*one) * math.hypot(*other))


async def test_a_template_of_the_catalog_is_used_in_place_of_the_models(
    case: Any, launcher: Launcher
) -> None:
    spec = msgspec.structs.replace(
        case.spec, chat_template="Hello", capabilities=case.spec.capabilities - {"tools"}
    )
    plan = case.backend.plan(spec, case.stored, EngineOptions(context_length=256, slots=1))
    launch = case.backend.command(spec, case.stored, plan)
    process = await launcher.start(launch, spec.id)
    try:
        endpoint = await launcher.ready(process, launch, case.backend)
        base = f"http://{endpoint.host}:{endpoint.port}"
        body = {"model": spec.id, "messages": [{"role": "user", "content": "word " * 50}], "max_tokens": 4}
        async with httpx.AsyncClient(base_url=base, headers=list(endpoint.headers), timeout=60) as client:
            answer = await client.post("/v1/chat/completions", json=body)
        assert answer.json()["usage"]["prompt_tokens"] < 5, "the question is not in it"
    finally:
        assert await process.stop() == ()


def is_there(process: psutil.Process) -> bool:
    """Whether it runs; one that ended and waits for whoever adopted it to take note does not."""
    with contextlib.suppress(psutil.NoSuchProcess):
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    return False


async def test_its_death_is_noticed_and_leaves_nothing(start: Any) -> None:
    async with start() as engine:
        tree = [psutil.Process(pid) for pid in engine.process.pids()]
        async with engine.stream(**engine.endless(LONG)) as response:
            lines = response.aiter_lines()
            await anext(lines)
            os.kill(engine.process.pid, signal.SIGKILL)
            async with asyncio.timeout(2):
                assert await engine.process.wait() == "was killed by SIGKILL"
            with pytest.raises(httpx.RemoteProtocolError):
                async for _ in lines:
                    pass
        assert await engine.process.stop() == ()
    assert not any(is_there(process) for process in tree)


async def test_the_death_of_a_process_that_computes_is_noticed_and_leaves_nothing(start: Any) -> None:
    """Where the engine has processes beside its first: each is killed by itself, and all must go."""
    async with start() as engine:
        tree = [psutil.Process(pid) for pid in engine.process.pids()]
        for process in tree[1:]:
            process.kill()
        if len(tree) > 1:
            async with asyncio.timeout(30):
                await engine.process.wait()
        assert await engine.process.stop() == ()
    assert not any(is_there(process) for process in tree)


async def test_weights_that_are_not_weights_are_explained_without_a_path(
    case: Any, launcher: Launcher, tmp_path: Path
) -> None:
    plan = case.backend.plan(case.spec, case.stored, EngineOptions(context_length=256, slots=1))
    broken = replace(case.stored, path=case.rot(tmp_path))
    launch = case.backend.command(case.spec, broken, plan)
    process = await launcher.start(launch, case.spec.id)
    with pytest.raises(EngineFailed, match=r"exit code 1.*: .+") as failed:
        await launcher.ready(process, launch, case.backend)
    assert "/" not in str(failed.value)
    assert await process.stop() == ()


PARENT = """
import asyncio, pickle, sys
from pathlib import Path
from runtime.backends.base import EngineOptions
from runtime.launcher import Launcher

async def main():
    backend, spec, stored = pickle.loads(Path(sys.argv[1]).read_bytes())
    launch = backend.command(spec, stored, backend.plan(spec, stored, EngineOptions(256, 1)))
    launcher = Launcher(Path(sys.argv[2]))
    process = await launcher.start(launch, spec.id)
    print(process.pid, flush=True)
    await launcher.ready(process, launch, backend)
    print(*process.pids(), flush=True)
    await asyncio.Event().wait()

asyncio.run(main())
"""


@pytest.mark.parametrize("moment", ["while it loads", "when it is ready"])
async def test_a_node_that_is_killed_leaves_no_engine(case: Any, tmp_path: Path, moment: str) -> None:
    wanted = tmp_path / "wanted"
    wanted.write_bytes(pickle.dumps((case.backend, case.spec, case.stored)))
    parent = await asyncio.create_subprocess_exec(
        sys.executable, "-c", PARENT, str(wanted), str(tmp_path), stdout=asyncio.subprocess.PIPE
    )
    assert parent.stdout is not None
    engine = [psutil.Process(int(await parent.stdout.readline()))]
    if moment == "when it is ready":
        engine = [psutil.Process(int(pid)) for pid in (await parent.stdout.readline()).split()]
    parent.kill()
    await parent.wait()
    _, left = await asyncio.to_thread(psutil.wait_procs, engine, timeout=5)
    assert not any(is_there(process) for process in left)
