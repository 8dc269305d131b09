"""What a session promises while it lasts, the same over memory and over a real websocket."""

import asyncio
import hashlib

import pytest

from tunnel.errors import (
    ProtocolViolation,
    ResetCode,
    StreamReset,
    TooManyStreams,
)
from tunnel.messages import Command, Event, Head, Notice, Trailers, Usage

OK = Head(status=200, headers=(("content-type", "text/event-stream"),))
TRAILERS = Trailers(
    usage=Usage(prompt_tokens=3, cached_tokens=1, completion_tokens=5), ttft_ms=12.5, outcome="stop"
)
BIG = bytes(range(256)) * 4096 * 8  # 8 MiB


async def read_all(stream) -> bytes:
    parts = []
    while (data := await stream.receive()) is not None:
        parts.append(data)
    return b"".join(parts)


async def test_a_request_and_its_answer(link, request_open) -> None:
    async def handler(stream) -> None:
        assert stream.open.path == "/v1/chat/completions"
        body = await read_all(stream)
        await stream.send_head(OK)
        await stream.send(b"data: " + body)
        await stream.send(b"\n\n", fin=True, trailers=TRAILERS)

    link.handler = handler
    stream = await link.hub.open(request_open())
    await stream.send(b"hel")
    await stream.send(b"lo", fin=True)
    assert await stream.head() == OK
    assert await read_all(stream) == b"data: hello\n\n"
    assert stream.finished
    assert stream.trailers == TRAILERS
    assert await stream.receive() is None


async def test_the_last_bytes_come_with_fin_and_trailers(link, request_open) -> None:
    """One frame carries the last data, FIN and trailers: the reader sees them together."""

    async def handler(stream) -> None:
        await stream.send_head(OK)
        await stream.send(b"first")
        await read_all(stream)
        await stream.send(b"last", fin=True, trailers=TRAILERS)

    link.handler = handler
    stream = await link.hub.open(request_open())
    assert await stream.receive() == b"first"
    assert not stream.finished
    assert stream.trailers is None
    await stream.send(b"", fin=True)
    assert await stream.receive() == b"last"
    assert stream.finished
    assert stream.trailers == TRAILERS


async def test_an_empty_answer(link, request_open) -> None:
    async def handler(stream) -> None:
        await stream.send_head(Head(status=204, headers=()))
        await stream.send(b"", fin=True)

    link.handler = handler
    stream = await link.hub.open(request_open())
    await stream.send(b"", fin=True)
    assert (await stream.head()).status == 204
    assert await stream.receive() is None
    assert stream.finished
    assert stream.trailers is None


async def test_big_bodies_both_ways_at_once(link, request_open) -> None:
    async def handler(stream) -> None:
        await stream.send_head(OK)
        while (data := await stream.receive()) is not None:
            await stream.send(data)
        await stream.send(b"", fin=True)

    link.handler = handler
    stream = await link.hub.open(request_open())
    sending = asyncio.create_task(stream.send(BIG, fin=True))
    received = await read_all(stream)
    await sending
    assert hashlib.sha256(received).digest() == hashlib.sha256(BIG).digest()


async def test_a_stalled_stream_stalls_no_other(link, request_open) -> None:
    stalled = asyncio.Event()

    async def handler(stream) -> None:
        await stream.send_head(OK)
        if stream.open.uid == "slow":
            sending = asyncio.create_task(stream.send(BIG, fin=True))
            done, _ = await asyncio.wait({sending}, timeout=0)
            assert not done
            stalled.set()
            await sending
        else:
            await stream.send(b"quick" * 40_000, fin=True)

    link.handler = handler
    slow = await link.hub.open(request_open("slow"))
    await slow.head()
    await stalled.wait()
    for _ in range(5):
        quick = await link.hub.open(request_open("quick"))
        assert len(await read_all(quick)) == 200_000
        quick.reset(ResetCode.CANCELLED)
    assert slow._state.window.received <= slow._state.window.granted
    assert await read_all(slow) == BIG


async def test_reset_by_the_hub_cancels_the_handler(link, request_open) -> None:
    began, cancelled = asyncio.Event(), asyncio.Event()

    async def handler(stream) -> None:
        await stream.send_head(OK)
        began.set()
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()

    link.handler = handler
    stream = await link.hub.open(request_open())
    await began.wait()
    stream.reset(ResetCode.CANCELLED, "client gone")
    await cancelled.wait()
    with pytest.raises(StreamReset) as caught:
        await stream.receive()
    assert caught.value.code is ResetCode.CANCELLED
    with pytest.raises(StreamReset):
        await stream.send(b"x")
    stream.reset(ResetCode.DEADLINE)  # a second reset changes nothing
    assert link.hub.streams == 0


async def test_reset_by_the_node_comes_after_what_it_sent(link, request_open) -> None:
    async def handler(stream) -> None:
        await stream.send_head(OK)
        await stream.send(b"half")
        await stream.receive()
        stream.reset(ResetCode.ENGINE_ERROR, "engine died")

    link.handler = handler
    stream = await link.hub.open(request_open())
    assert await stream.receive() == b"half"
    await stream.send(b"go")
    with pytest.raises(StreamReset, match="engine died") as caught:
        await stream.receive()
    assert caught.value.code is ResetCode.ENGINE_ERROR
    with pytest.raises(StreamReset):
        await stream.send(b"")


async def test_refused_before_the_head(link, request_open) -> None:
    async def handler(stream) -> None:
        stream.reset(ResetCode.REFUSED)

    link.handler = handler
    stream = await link.hub.open(request_open())
    with pytest.raises(StreamReset) as caught:
        await stream.head()
    assert caught.value.code is ResetCode.REFUSED


async def test_a_raising_handler_is_a_node_error_logged_without_content(link, request_open, caplog) -> None:
    async def handler(stream) -> None:
        raise ValueError("the prompt was: secret")

    link.handler = handler
    stream = await link.hub.open(request_open())
    with pytest.raises(StreamReset) as caught:
        await stream.head()
    assert caught.value.code is ResetCode.NODE_ERROR
    record = next(record for record in caplog.records if getattr(record, "event", "") == "handler_failed")
    assert record.error == "ValueError"
    assert "secret" not in caplog.text + str(record.__dict__)


async def test_a_handler_that_forgets_the_end(link, request_open) -> None:
    async def handler(stream) -> None:
        await stream.send_head(OK)
        await stream.send(b"some")

    link.handler = handler
    stream = await link.hub.open(request_open())
    with pytest.raises(StreamReset) as caught:
        await read_all(stream)
    assert caught.value.code is ResetCode.NODE_ERROR


async def test_an_answer_before_the_whole_question(link, request_open) -> None:
    """The node answers at once; the rest of the body is dropped without stalling its sender."""

    async def handler(stream) -> None:
        await stream.send_head(Head(status=413, headers=()))
        await stream.send(b"no", fin=True)

    link.handler = handler
    stream = await link.hub.open(request_open())
    sending = asyncio.create_task(stream.send(BIG, fin=True))
    assert await read_all(stream) == b"no"
    await sending
    await link.node.idle()
    assert link.node.streams == 0


async def test_status_at_once_on_change_and_with_live_streams(link, request_open) -> None:
    first = await link.statuses.get()
    assert first.sequence == 1
    assert first.streams == ()
    stream = await link.hub.open(request_open())
    link.node.status_changed()
    link.node.status_changed()
    second = await link.statuses.get()
    assert second.sequence == 2
    assert second.streams == (stream.id,) or second.streams == ()
    assert link.hub.status == second
    stream.reset(ResetCode.CANCELLED)


async def test_commands_and_their_events(link) -> None:
    command = Command(job="job_1", action="pull", model="smollm2")
    await link.hub.command(command)
    assert await link.commands.get() == command
    event = Event(job="job_1", phase="downloading", done=1, total=2, error=None)
    link.node.send_event(event)
    assert await link.events.get() == event


async def test_what_the_hub_has_decided_of_the_node_is_told_in_order(link) -> None:
    for draining in (True, False, True):
        link.hub.notice(Notice(draining=draining))
        assert await link.notices.get() == (link.node.generation, Notice(draining=draining))
    await link.hub.close("over")
    link.hub.notice(Notice(draining=False))
    assert link.notices.empty()


async def test_too_many_streams(link, request_open) -> None:
    async def handler(stream) -> None:
        await asyncio.Event().wait()

    link.handler = handler
    streams = [await link.hub.open(request_open(str(number))) for number in range(256)]
    with pytest.raises(TooManyStreams):
        await link.hub.open(request_open())
    for stream in streams:
        stream.reset(ResetCode.CANCELLED)  # all at once is not a flood
    again = await link.hub.open(request_open())
    assert again.id == 257
    again.reset(ResetCode.CANCELLED)
    await link.node.idle()
    assert link.hub.close_reason is None


async def test_thirty_two_streams_interleave(link, request_open) -> None:
    async def handler(stream) -> None:
        await stream.send_head(OK)
        for number in range(50):
            await stream.send(f"{stream.open.uid}:{number};".encode())
            await asyncio.sleep(0)
        await stream.send(b"", fin=True)

    async def ask(uid: str) -> bytes:
        stream = await link.hub.open(request_open(uid))
        await stream.send(b"{}", fin=True)
        return await read_all(stream)

    link.handler = handler
    uids = [f"r{number}" for number in range(32)]
    answers = await asyncio.gather(*map(ask, uids))
    for uid, answer in zip(uids, answers, strict=True):
        assert answer == b"".join(f"{uid}:{number};".encode() for number in range(50))
    assert link.hub.streams == 0


async def test_misuse_is_ours_to_fix(link, request_open) -> None:
    seen: asyncio.Queue[bool] = asyncio.Queue()

    async def handler(stream) -> None:
        for misuse in (stream.send(b"early"),):
            with pytest.raises(ProtocolViolation) as caught:
                await misuse
            seen.put_nowait(caught.value.local)
        await stream.send_head(OK)
        with pytest.raises(ProtocolViolation):
            await stream.send_head(OK)
        await stream.send(b"x", fin=True)
        with pytest.raises((ProtocolViolation, StreamReset)):
            await stream.send(b"more")
        seen.put_nowait(True)

    link.handler = handler
    stream = await link.hub.open(request_open())
    await stream.send(b"", fin=True)
    assert await read_all(stream) == b"x"
    assert await seen.get()
    assert await seen.get()
    assert link.hub.close_reason is None


async def test_what_is_offered_is_sent_or_left(link, request_open) -> None:
    offered: list[bool] = []
    full = asyncio.Event()

    async def handler(stream) -> None:
        await stream.send_head(Head(status=200, headers=()))
        offered.append(stream.offer(b"one "))
        await stream.send(b"two ")
        while stream.offer(b"x" * 16_000):
            offered.append(True)
        offered.append(False)
        full.set()
        await stream.send(b" end", fin=True)

    link.handler = handler
    stream = await link.hub.open(request_open())
    await stream.send(b"", fin=True)
    await full.wait()
    body = b""
    while (piece := await stream.receive()) is not None:
        body += piece
    assert body == b"one two " + b"x" * 16_000 * (len(offered) - 2) + b" end"
    assert offered[0]
    assert not offered[-1]
    assert len(offered) > 2


async def test_nothing_can_be_offered_to_a_stream_that_is_over(link, request_open) -> None:
    refused: asyncio.Future[bool] = asyncio.get_running_loop().create_future()

    async def handler(stream) -> None:
        await stream.send_head(Head(status=200, headers=()))
        stream.reset(ResetCode.ENGINE_ERROR)
        refused.set_result(stream.offer(b"late"))

    link.handler = handler
    stream = await link.hub.open(request_open())
    assert not await refused
    with pytest.raises(StreamReset):
        await stream.receive()
