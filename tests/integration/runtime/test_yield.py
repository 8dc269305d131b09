"""Giving the machine back, with the real engine: answers end, waiters go elsewhere, models leave."""

import asyncio
import json
import os
import pty
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from runtime.control_client import ControlClient

MODEL = "smollm2-135m-instruct"


@pytest.fixture
def with_engine(porten: Any, shared_data: Path) -> Any:
    porten.settings |= {
        "PORTEN_ENGINES_DIR": str(shared_data / "engines"),
        "PORTEN_MODELS_DIR": str(shared_data / "models"),
        "PORTEN_MODELS": MODEL,
        "PORTEN_SLOTS": "1",
    }
    return porten


@pytest.fixture
async def http() -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(trust_env=False, timeout=60) as client:
        yield client


async def status(porten: Any) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(await porten("status", "--json"))
    return document


def chat(tokens: int) -> dict[str, Any]:
    return {
        "model": MODEL,
        "messages": [{"role": "user", "content": "Count."}],
        "max_tokens": tokens,
        "stream": True,
        "ignore_eos": True,
    }


@asynccontextmanager
async def asked(
    http: httpx.AsyncClient, url: str, tokens: int
) -> AsyncIterator[tuple[int, AsyncIterator[str]]]:
    async with http.stream("POST", f"{url}/v1/chat/completions", json=chat(tokens)) as answer:
        yield answer.status_code, answer.aiter_lines()


@pytest.mark.engine
async def test_what_runs_ends_what_waits_goes_and_the_memory_is_given_back(
    with_engine: Any, http: httpx.AsyncClient
) -> None:
    node = await with_engine.run("--local-only")
    url = (await status(with_engine))["local_api"]
    control = ControlClient.connect(with_engine.home / "data" / "state")
    async with control as owner, asked(http, url, 400) as (code, lines):
        assert code == 200
        await anext(lines)
        waiting = asyncio.create_task(http.post(f"{url}/v1/chat/completions", json=chat(5)))
        async with asyncio.timeout(20):
            while not any(replica["waiting"] for replica in (await owner.status())["replicas"]):
                pass
        assert (await owner.pause(None))["reason"] == "paused by its owner"
        sent_away = await waiting
        refused = await http.post(f"{url}/v1/chat/completions", json=chat(5))
        for answer in (sent_away, refused):
            assert (answer.status_code, answer.json()["error"]["code"]) == (503, "no_available_node")
            assert "paused by its owner" in answer.json()["error"]["message"]
        assert (await http.get(f"{url}/healthz")).json()["accepting"] is False
        assert [line async for line in lines if line][-1] == "data: [DONE]", "it was answered to its end"
    await node.said("stage=away")
    document = await status(with_engine)
    assert (document["replicas"], document["accepting"]) == ([], False)
    assert "(away)" in await with_engine("status")
    assert "The node works" in await with_engine("resume")
    async with asked(http, url, 5) as (code, lines):
        assert code == 200
        assert [line async for line in lines if line][-1] == "data: [DONE]"


async def test_a_pause_is_kept_over_a_restart_and_can_be_made_without_a_node(porten: Any) -> None:
    assert "start paused" in await porten("pause", "--for", "1h")
    await porten.run("--local-only")
    document = await status(porten)
    assert document["reason"].startswith("paused by its owner, until ")
    assert document["owner"]["stage"] == "away"
    await porten("stop")
    assert "will not start paused" in await porten("resume")
    assert "no pause" in await porten("resume")
    await porten.run("--local-only")
    assert (await status(porten))["owner"] == {
        "stage": "serving",
        "causes": [],
        "reason": None,
        "paused_until": None,
    }


async def test_a_pause_that_has_a_length_ends_by_itself(porten: Any) -> None:
    node = await porten.run("--local-only")
    assert "until" in await porten("pause", "--for", "1s")
    await node.said("takes up work")
    assert (await status(porten))["owner"]["stage"] == "serving"


async def test_outside_its_hours_it_rests_whatever_the_owner_resumes(porten: Any) -> None:
    porten.settings["PORTEN_SCHEDULE"] = _never()
    await porten.run("--local-only")
    assert "outside its hours, until" in (await status(porten))["reason"]
    assert "but: outside its hours" in await porten("resume")


def _never() -> str:
    """A minute of the week that is half a week away."""
    from datetime import datetime, timedelta

    from runtime.hours import DAYS

    then = datetime.now().astimezone() + timedelta(days=3, hours=12)
    return f"{DAYS[then.weekday()]} {then:%H:%M}-{then + timedelta(minutes=1):%H:%M}"


async def test_a_length_that_is_none_is_wrong_usage(porten: Any) -> None:
    assert "is no length of time" in await porten("pause", "--for", "soon", code=2)


async def test_the_status_is_watched_on_a_terminal(porten: Any) -> None:
    await porten.run("--local-only")
    ours, theirs = pty.openpty()
    clean = {name: value for name, value in os.environ.items() if not name.startswith("PORTEN_")}
    process = await asyncio.create_subprocess_exec(
        *(porten.program, "status", "--watch"),
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
        env=clean | {"HOME": str(porten.home), "TERM": "xterm", "COLUMNS": "100"} | porten.settings,
    )
    os.close(theirs)
    try:
        await _reads(ours, "serving this machine only")
        await porten("pause")
        await _reads(ours, "paused by its owner")
        await porten("stop")
        await _reads(ours, "is not running")
    finally:
        process.terminate()
        await process.wait()
        os.close(ours)
    assert "--json" in await porten("status", "--watch", "--json", code=1)


async def _reads(terminal: int, words: str) -> None:
    shown = ""
    async with asyncio.timeout(20):
        while words not in shown:
            shown += (await asyncio.to_thread(os.read, terminal, 65536)).decode("utf-8", "replace")
