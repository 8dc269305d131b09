"""A node with a real engine is told to stop while it answers, or loses its client."""

import asyncio
import json
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from runtime.control_client import ControlClient

MODEL = "smollm2-135m-instruct"


def story(tokens: int) -> dict[str, object]:
    messages = [{"role": "user", "content": "Tell a long story."}]
    return {"model": MODEL, "messages": messages, "max_tokens": tokens, "stream": True, "ignore_eos": True}


@pytest.fixture
async def node(porten: Any, shared_data: Path) -> Any:
    porten.settings |= {
        "PORTEN_ENGINES_DIR": str(shared_data / "engines"),
        "PORTEN_MODELS_DIR": str(shared_data / "models"),
    }
    return await porten.run("--local-only")


@pytest.fixture
async def http(porten: Any, node: Any) -> AsyncIterator[httpx.AsyncClient]:
    status = json.loads(await porten("status", "--json"))
    async with httpx.AsyncClient(base_url=status["local_api"], trust_env=False, timeout=60) as client:
        yield client


def engines_of(node: Any) -> list[psutil.Process]:
    return psutil.Process(node.process.pid).children(recursive=True)


@pytest.mark.engine
async def test_an_answer_in_flight_is_finished_first(node: Any, http: httpx.AsyncClient) -> None:
    async with http.stream("POST", "/v1/chat/completions", json=story(60)) as answer:
        lines = answer.aiter_lines()
        await anext(lines)
        engines = engines_of(node)
        assert engines
        node.process.send_signal(signal.SIGTERM)
        await node.said("stopping")
        rest = [line async for line in lines if line]
    assert rest[-1] == "data: [DONE]"
    assert await node.ended() == 0
    assert not any(engine.is_running() for engine in engines)


@pytest.mark.engine
async def test_a_second_signal_ends_it_at_once(node: Any, http: httpx.AsyncClient) -> None:
    async with http.stream("POST", "/v1/chat/completions", json=story(6000)) as answer:
        lines = answer.aiter_lines()
        await anext(lines)
        engines = engines_of(node)
        node.process.send_signal(signal.SIGTERM)
        await node.said("stopping: answers")
        node.process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(12):
            assert await node.ended() == 0
    assert not any(engine.is_running() for engine in engines)


@pytest.fixture
def short_grace(porten: Any) -> None:
    porten.settings["PORTEN_DRAIN_S"] = "1"


@pytest.mark.engine
@pytest.mark.usefixtures("short_grace")
async def test_who_waits_for_an_answer_when_the_grace_is_over_gets_the_envelope(
    porten: Any, node: Any, http: httpx.AsyncClient
) -> None:
    asking = asyncio.create_task(http.post("/v1/chat/completions", json={**story(6000), "stream": False}))
    async with ControlClient.connect(porten.home / "data" / "state") as control:
        while not await running(control):
            pass
    node.process.send_signal(signal.SIGTERM)
    answer = await asking
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "no_available_node")
    assert await node.ended() == 0
    assert "Traceback" not in node.output


@pytest.mark.engine
@pytest.mark.usefixtures("short_grace")
async def test_a_stream_that_the_grace_does_not_see_to_its_end_says_so(
    node: Any, http: httpx.AsyncClient
) -> None:
    async with http.stream("POST", "/v1/chat/completions", json=story(6000)) as answer:
        lines = answer.aiter_lines()
        await anext(lines)
        node.process.send_signal(signal.SIGTERM)
        rest = [line async for line in lines if line]
    assert json.loads(rest[-1].removeprefix("data: "))["error"]["code"] == "no_available_node"
    assert await node.ended() == 0
    assert "Traceback" not in node.output


@pytest.mark.engine
async def test_killing_the_node_leaves_no_engine(node: Any, http: httpx.AsyncClient) -> None:
    async with http.stream("POST", "/v1/chat/completions", json=story(6000)) as answer:
        lines = answer.aiter_lines()
        await anext(lines)
        engines = engines_of(node)
        assert engines
        node.process.kill()
        await node.ended()
    gone, alive = await asyncio.to_thread(psutil.wait_procs, engines, timeout=10)
    assert gone
    assert not alive


@pytest.mark.engine
async def test_a_client_that_hangs_up_frees_its_slot_within_a_second(
    http: httpx.AsyncClient, porten: Any
) -> None:
    async with ControlClient.connect(porten.home / "data" / "state") as control:
        async with http.stream("POST", "/v1/chat/completions", json=story(6000)) as answer:
            lines = answer.aiter_lines()  # kept: letting go of it hangs up
            await anext(lines)
            assert await running(control) == 1
        async with asyncio.timeout(1):
            while await running(control):
                pass


async def running(control: ControlClient) -> int:
    return sum(replica["running"] for replica in (await control.status())["replicas"])
