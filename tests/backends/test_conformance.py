"""What every backend must do, shown on the real engine: the node relies on each of these."""

import asyncio
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from models.catalog import ModelSpec
from models.store import StoredModel
from runtime.backends.base import Backend, EngineOptions
from runtime.errors import EngineFailed
from runtime.launcher import Launcher

pytestmark = pytest.mark.engine

LONG = {"max_tokens": 900, "ignore_eos": True}


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
    chunks = await engine.chunks(max_tokens=8, ignore_eos=True)
    assert len(chunks) > 3
    reasons = [choice["finish_reason"] for chunk in chunks for choice in chunk["choices"]]
    assert [reason for reason in reasons if reason] == ["length"]


async def test_usage_is_there_whether_or_not_it_was_asked_for(engine: Any) -> None:
    asked = await engine.chunks(stream_options={"include_usage": True}, ignore_eos=True)
    assert asked[-1]["choices"] == []
    assert asked[-1]["usage"]["completion_tokens"] == 16
    unasked = await engine.chunks(ignore_eos=True)
    assert "usage" not in unasked[-1]
    assert unasked[-1]["timings"]["predicted_n"] == 16


async def test_it_is_closed_to_whoever_lacks_the_key(engine: Any) -> None:
    for headers in ({}, {"authorization": "Bearer wrong"}):
        async with httpx.AsyncClient(base_url=engine.client.base_url, headers=headers) as stranger:
            assert (await stranger.post("/v1/chat/completions", json=engine.body())).status_code == 401
            assert (await stranger.get("/slots")).status_code == 401
    assert not any("Bearer" in part for part in psutil.Process(engine.process.pid).cmdline())


async def test_it_listens_on_loopback_only(engine: Any) -> None:
    listening = [c for c in psutil.Process(engine.process.pid).net_connections() if c.status == "LISTEN"]
    assert {connection.laddr.ip for connection in listening} == {"127.0.0.1"}


async def test_eight_at_once_share_the_engine(engine: Any) -> None:
    arrivals: list[int] = []

    async def one(number: int) -> None:
        async with engine.stream(f"Count from {number}.", max_tokens=24, ignore_eos=True) as response:
            async for line in response.aiter_lines():
                arrivals.extend([number] * line.startswith("data: "))

    await asyncio.gather(*(one(number) for number in range(8)))
    first_end = min(len(arrivals) - 1 - arrivals[::-1].index(number) for number in range(8))
    assert set(arrivals[:first_end]) == set(range(8)), "one was answered whole before another began"
    assert await engine.busy() == 0


async def test_a_closed_connection_frees_the_slot_within_a_second(engine: Any) -> None:
    async with engine.stream(**LONG) as response:
        lines = response.aiter_lines()
        await anext(lines)
        assert await engine.busy() == 1
    await eventually(lambda: _is_idle(engine), within_s=1.0)


async def test_an_answer_that_is_not_streamed_is_given_up_too(engine: Any) -> None:
    """llama.cpp looks whether anybody still listens only after a second without any result, of any request:
    ours, which ask for its slots, count too, so this asks seldom. An engine that is busy with others carries
    such a request to its end."""
    asking = asyncio.create_task(engine.chat(**LONG))
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
    slots = await engine.slots()
    assert len(slots) == engine.plan.slots
    assert {slot["n_ctx"] for slot in slots} == {engine.plan.context_length}
    refused = await engine.chat("word " * 2000)
    assert refused.status_code == 400
    assert refused.json()["error"]["type"] == "exceed_context_size_error"


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
    """The estimate is never exceeded, and at most a quarter of it is wasted."""
    await asyncio.gather(*(engine.chat("tell a story " * 30) for _ in range(8)))
    taken = psutil.Process(engine.process.pid).memory_info().rss
    assert 0.75 * engine.plan.memory.total < taken < engine.plan.memory.total


async def test_its_death_is_noticed_and_leaves_nothing(engine: Any) -> None:
    tree = [psutil.Process(pid) for pid in engine.process.pids()]
    async with engine.stream(**LONG) as response:
        lines = response.aiter_lines()
        await anext(lines)
        os.kill(engine.process.pid, signal.SIGKILL)
        async with asyncio.timeout(2):
            assert await engine.process.wait() == "was killed by SIGKILL"
        with pytest.raises(httpx.RemoteProtocolError):
            async for _ in lines:
                pass
    assert await engine.process.stop() == ()
    assert not any(process.is_running() for process in tree)


async def test_weights_that_are_not_weights_are_explained_without_a_path(
    backend: Backend, spec: ModelSpec, stored: StoredModel, launcher: Launcher, tmp_path: Path
) -> None:
    plan = backend.plan(spec, stored, EngineOptions(context_length=256, slots=1))
    rotten = tmp_path / "rotten.gguf"
    rotten.write_bytes(b"GGUF" + bytes(4096))
    broken = StoredModel(model_id=spec.id, path=rotten, digest=stored.digest, size_bytes=4100)
    launch = backend.command(spec, broken, plan)
    process = await launcher.start(launch, spec.id)
    with pytest.raises(EngineFailed, match=r"exit code 1.*: .+") as failed:
        await launcher.ready(process, launch, backend)
    assert "/" not in str(failed.value)
    assert await process.stop() == ()


PARENT = """
import asyncio, sys
from pathlib import Path
from models.catalog import load_catalog
from models.store import ModelStore
from runtime.backends.base import EngineOptions
from runtime.backends.llama_cpp import LlamaCppBackend
from runtime.engines import EngineEnvironment
from runtime.launcher import Launcher

async def main():
    data, state = map(Path, sys.argv[1:])
    spec = load_catalog().require("smollm2-135m-instruct")
    backend = LlamaCppBackend(EngineEnvironment(data / "engines"))
    stored = ModelStore(data / "models").find(spec)
    launch = backend.command(spec, stored, backend.plan(spec, stored, EngineOptions(256, 1)))
    process = await Launcher(state).start(launch, spec.id)
    print(process.pid, flush=True)
    await Launcher(state).ready(process, launch, backend)
    print("ready", flush=True)
    await asyncio.Event().wait()

asyncio.run(main())
"""


@pytest.mark.parametrize("moment", ["while it loads", "when it is ready"])
async def test_a_node_that_is_killed_leaves_no_engine(
    backend: Backend, stored: StoredModel, shared_data: Path, tmp_path: Path, moment: str
) -> None:
    parent = await asyncio.create_subprocess_exec(
        sys.executable, "-c", PARENT, str(shared_data), str(tmp_path), stdout=asyncio.subprocess.PIPE
    )
    assert parent.stdout is not None
    engine = psutil.Process(int(await parent.stdout.readline()))
    if moment == "when it is ready":
        assert await parent.stdout.readline() == b"ready\n"
    parent.kill()
    await parent.wait()
    await asyncio.to_thread(psutil.wait_procs, [engine], timeout=5)
    assert not engine.is_running() or engine.status() == psutil.STATUS_ZOMBIE
