"""Row "loop stalled on either side": the session ends cleanly and the next one serves; nothing is wedged."""

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from concurrent.futures import Future
from typing import Any

import pytest

from tunnel.backoff import Backoff
from tunnel.errors import ResetCode, StreamReset
from tunnel.liveness import LivenessTimes
from tunnel.messages import Head

HEARTBEAT_S = 0.6
TIMES = LivenessTimes.for_heartbeat(HEARTBEAT_S)  # dead after 1.6 s of silence or 0.8 s of a stalled write
Run = Callable[[Coroutine[Any, Any, Any]], Awaitable[Any]]


class Elsewhere:
    """An event loop in a thread of its own, as the other machine has one."""

    def __init__(self) -> None:
        self._loop: Future[asyncio.AbstractEventLoop] = Future()
        self._stop = asyncio.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._live()))
        self._thread.start()

    async def run(self, work: Coroutine[Any, Any, Any]) -> Any:
        """Run something there, and wait for it here."""
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(work, self._loop.result()))

    def stall(self, seconds: float) -> None:
        """Hold that loop up."""
        self._loop.result().call_soon_threadsafe(time.sleep, seconds)

    def close(self) -> None:
        self._loop.result().call_soon_threadsafe(self._stop.set)
        self._thread.join()

    async def _live(self) -> None:
        self._loop.set_result(asyncio.get_running_loop())
        await self._stop.wait()


async def here(work: Coroutine[Any, Any, Any]) -> Any:
    return await work


async def talk(stream) -> None:
    """Say something every millisecond, for as long as anybody listens."""
    await stream.send_head(Head(status=200, headers=()))
    while stream.open.uid == "held":
        await stream.send(b"data: token\n\n" * 100)
        await asyncio.sleep(0.001)
    await stream.send(b"whole", fin=True)


async def begin_hub(new_hub):
    side = new_hub(heartbeat_s=HEARTBEAT_S)
    await side.server.start("127.0.0.1", 0)
    return side


async def begin_node(new_node, url: str, identity):
    side = new_node(url, identity, backoff=Backoff(lambda: 0.1))
    side.handler = talk
    side.start()
    return side


@pytest.fixture
def elsewhere() -> Iterator[Elsewhere]:
    other = Elsewhere()
    yield other
    other.close()


@pytest.fixture(params=["hub", "node"])
async def ends(request, elsewhere, new_hub, new_node):
    """Both ends, one of them in a loop that can be stalled; and how to run something on each."""
    on_hub, on_node = (elsewhere.run, here) if request.param == "hub" else (here, elsewhere.run)
    hub_side = await on_hub(begin_hub(new_hub))
    node = await on_node(begin_node(new_node, hub_side.url, hub_side.know()))
    yield hub_side, node, on_hub, on_node
    await on_node(node.stop())
    await on_hub(hub_side.server.close())
    assert await elsewhere.run(count_tasks()) == 2, "the loop's own and this one"


async def count_tasks() -> int:
    await asyncio.sleep(0)
    return len(asyncio.all_tasks())


async def listen(session, request_open) -> ResetCode:
    """Open a stream that never ends, and say how it ended."""
    stream = await session.open(request_open("held"))
    try:
        while await stream.receive():
            pass
    except StreamReset as reset:
        return reset.code
    raise AssertionError("it ended in order")


async def serve_one(session, request_open) -> bytes | None:
    stream = await session.open(request_open("short"))
    await stream.send(b"", fin=True)
    return await stream.receive()


async def test_a_loop_stalled_for_longer_than_the_deadline(ends, elsewhere, request_open) -> None:
    hub_side, node, on_hub, on_node = ends
    session = await on_hub(hub_side.sessions.get())
    await on_node(node.reach("connected"))
    old = node.client.session
    listening = asyncio.ensure_future(on_hub(listen(session, request_open)))
    while not old.streams:
        await asyncio.sleep(0.01)
    elsewhere.stall(2 * TIMES.silence_s)
    assert await listening is ResetCode.SESSION_LOST
    await on_hub(session.closed.wait())
    await on_node(old.closed.wait())
    assert {session.close_reason, old.close_reason} & {"silent", "stalled"}
    second = await on_hub(hub_side.sessions.get())
    assert await on_hub(serve_one(second, request_open)) == b"whole"
    assert (session.streams, old.streams) == (0, 0)


async def test_a_loop_stalled_for_less_than_the_deadline(ends, elsewhere, request_open) -> None:
    hub_side, _, on_hub, _ = ends
    session = await on_hub(hub_side.sessions.get())
    elsewhere.stall(TIMES.silence_s / 3)
    assert await on_hub(serve_one(session, request_open)) == b"whole"
    assert session.close_reason is None
