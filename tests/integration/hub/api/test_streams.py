"""Streams under stress: clients that leave or stop reading, nodes that vanish, many at once."""

import asyncio
import json
import socket

import httpx
import pytest

from hub.api.guarded_http import GuardedHttp
from tunnel.messages import Head, Trailers

CHAT = "/v1/chat/completions"


def ask(**changes):
    return {"model": "tiny", "messages": [{"role": "user", "content": "x"}], "stream": True} | changes


@pytest.fixture
async def node(bench):
    organisation = await bench.organisation()
    bench.secret = await bench.key(organisation)
    return await bench.node(organisation)


@pytest.fixture
def auth(bench, node):
    return {"authorization": f"Bearer {bench.secret}"}


async def test_a_client_that_leaves_stops_the_node_within_a_second(bench, node, http, auth, script):
    async def endless(stream, body):
        await stream.send_head(Head(status=200, headers=script.sse))
        while True:
            await stream.send(script.chunk("word "))
            await asyncio.sleep(0.01)

    node.script = endless
    async with http.stream("POST", CHAT, json=ask(), headers=auth) as response:
        async for _line in response.aiter_lines():
            break
    async with asyncio.timeout(1):
        await node.cancelled.wait()
    (record,) = await bench.usage(1)
    assert record.outcome == "cancelled"


@pytest.mark.parametrize("stream", [True, False])
async def test_a_client_that_leaves_before_the_first_byte_stops_the_node_too(bench, node, auth, stream):
    async def thinks(stream, body):
        await asyncio.Event().wait()

    node.script = thinks
    async with httpx.AsyncClient(base_url=bench.url, trust_env=False) as client:
        asking = asyncio.create_task(client.post(CHAT, json=ask(stream=stream), headers=auth))
        await node.started.wait()
        asking.cancel()
        await asyncio.wait([asking])
    async with asyncio.timeout(1):
        await node.cancelled.wait()


async def test_many_streams_at_once_are_interleaved_and_complete(bench, node, auth, script):
    everyone = asyncio.Barrier(32)

    async def in_step(stream, body):
        await stream.send_head(Head(status=200, headers=script.sse))
        for number in range(5):
            await everyone.wait()  # nobody goes on before all have come this far
            await stream.send(script.chunk(f"{body['user']}-{number} "))
        await stream.send(b"data: [DONE]\n\n", fin=True, trailers=Trailers(usage=script.usage))

    node.script = in_step
    limits = httpx.Limits(max_connections=40)
    async with httpx.AsyncClient(base_url=bench.url, timeout=20, limits=limits, trust_env=False) as client:
        answers = await asyncio.gather(
            *[client.post(CHAT, json=ask(user=f"u{i}"), headers=auth) for i in range(32)]
        )
    for number, answer in enumerate(answers):
        words = [json.loads(line[6:])["choices"][0]["delta"]["content"] for line in events(answer)[:-1]]
        assert words == [f"u{number}-{step} " for step in range(5)]
        assert events(answer)[-1] == "data: [DONE]"
    assert len(await bench.usage(32)) == 32
    assert bench.hub.registry.snapshot()[node.node_id].in_flight == 0


def events(response):
    return [line for line in response.text.splitlines() if line.startswith("data:")]


async def never_reads(bench, auth):
    """A client that asks as `slow` and takes nothing of the answer."""
    reader = socket.create_connection(bench.url.removeprefix("http://").split(":"))
    reader.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    body = json.dumps(ask(user="slow")).encode()
    head = f"POST {CHAT} HTTP/1.1\r\nhost: x\r\nauthorization: {auth['authorization']}\r\n"
    await asyncio.to_thread(reader.sendall, f"{head}content-length: {len(body)}\r\n\r\n".encode() + body)
    return reader


def pours(script, sent):
    """A node that has ever more to say to `slow`, and three words to anybody else."""

    async def answer(stream, body):
        if body.get("user") != "slow":
            await script.answer(stream, body)
            return
        await stream.send_head(Head(status=200, headers=script.sse))
        while True:
            await stream.send(script.chunk("x" * 8000))
            sent.append(1)

    return answer


async def test_a_client_that_takes_nothing_for_a_minute_is_given_up(
    bench, node, http, auth, script, monkeypatch
):
    monkeypatch.setattr("hub.api.inference.STALL_S", 0.4)
    sent = []
    node.script = pours(script, sent)
    reader = await never_reads(bench, auth)
    async with asyncio.timeout(10):
        await node.cancelled.wait()
    (record,) = await bench.usage(1)
    assert record.outcome == "cancelled"
    assert bench.hub.registry.snapshot()[node.node_id].in_flight == 0
    reader.close()


async def test_nor_is_the_last_piece_waited_with_any_longer(bench, node, auth, script, monkeypatch):
    """The node has said all, and what it said last waits for room that never comes."""
    monkeypatch.setattr("hub.api.inference.STALL_S", 0.4)
    large = b"x" * (16 * 1024 * 1024)

    async def whole(stream, body):
        await stream.send_head(Head(status=200, headers=script.sse))
        await stream.send(script.chunk("first"))
        await held.wait()
        await stream.send(b"data: [DONE]\n\n", fin=True, trailers=Trailers(usage=script.usage))

    held, real, node.script = asyncio.Event(), GuardedHttp.connection_made, whole
    lines = []

    def connected(line, transport):
        real(line, transport)
        lines.append(line)

    monkeypatch.setattr(GuardedHttp, "connection_made", connected)
    reader = await never_reads(bench, auth)
    head = b""
    while b"first" not in head:
        head += await asyncio.to_thread(reader.recv, 1024)
    lines[-1].transport.write(large)  # so that there is no room for the last piece
    held.set()
    (record,) = await bench.usage(1)
    assert record.outcome == "ok"
    await script.until(lambda: not bench.hub.limits.held, "the place is given back")
    reader.close()


async def test_a_client_that_reads_slowly_is_not(bench, node, http, auth, script, monkeypatch):
    monkeypatch.setattr("hub.api.inference.STALL_S", 0.2)

    async def bursts(stream, body):
        await stream.send_head(Head(status=200, headers=script.sse))
        for _ in range(6):
            await asyncio.sleep(0.1)  # the engine thinks: nothing is on its way, and nobody is at fault
            await stream.send(script.chunk("word " * 10))
        await stream.send(b"data: [DONE]\n\n", fin=True, trailers=Trailers(usage=script.usage))

    node.script = bursts
    answer = await http.post(CHAT, json=ask(), headers=auth)
    assert events(answer)[-1] == "data: [DONE]"


async def test_a_client_that_stops_reading_stalls_nobody(bench, node, http, auth, script):
    sent = []
    node.script = pours(script, sent)
    reader = await never_reads(bench, auth)
    await script.until(lambda: stalled(sent), "the stream that nobody reads comes to a halt")
    halted = len(sent)
    assert halted * 8000 < 16 * 1024 * 1024, "what nobody reads must not pile up"

    answers = await asyncio.gather(*[http.post(CHAT, json=ask(), headers=auth) for _ in range(8)])
    assert all(events(answer)[-1] == "data: [DONE]" for answer in answers)
    assert len(sent) == halted
    reader.close()
    async with asyncio.timeout(1):
        await node.cancelled.wait()


def stalled(sent, seen=[]):  # noqa: B006 - remembers between two looks
    seen.append(len(sent))
    return len(sent) > 0 and len(seen) > 60 and len(set(seen[-60:])) == 1


async def test_a_node_that_vanishes_ends_the_stream_without_done(bench, node, http, auth, script):
    async def hangs(stream, body):
        await stream.send_head(Head(status=200, headers=script.sse))
        await stream.send(script.chunk("first"))
        await asyncio.Event().wait()

    node.script = hangs
    lines = []
    async with http.stream("POST", CHAT, json=ask(), headers=auth) as response:
        async for line in response.aiter_lines():
            if not lines:
                await bench.hub.registry.session(node.node_id).close("test")
            lines.append(line)
    last = json.loads([line for line in lines if line][-1].removeprefix("data: "))
    assert last["error"]["code"] == "node_lost"
    assert last["request_id"] == response.headers["x-request-id"]
    assert not any("[DONE]" in line for line in lines)


async def test_an_answer_that_breaks_off_is_never_taken_for_whole(bench, node, http, auth, script):
    async def half(stream, body):
        await stream.send_head(Head(status=200, headers=script.json))
        await stream.send(b'{"half": ')
        await asyncio.sleep(0.05)
        stream.reset(script.reset.ENGINE_ERROR)

    node.script = half
    with pytest.raises(httpx.RemoteProtocolError):
        await http.post(CHAT, json=ask(stream=False), headers=auth)
    (record,) = await bench.usage(1)
    assert record.outcome == "engine_error"


async def test_another_permitted_node_takes_over_before_the_first_byte(bench, node, http, auth, script):
    organisation = (await bench.hub.storage.organisations.list())[0].id
    other = await bench.node(organisation)

    async def refuses(stream, body):
        stream.reset(script.reset.REFUSED)

    for healthy, failing in ((node, other), (other, node)):
        healthy.script, failing.script = script.answer, refuses
        for _ in range(4):
            response = await http.post(CHAT, json=ask(), headers=auth)
            assert response.status_code == 200
            assert response.headers["x-porten-node"] == healthy.node_id


async def test_silence_is_bridged_with_comments_only_where_a_stream_was_asked_for(
    bench, node, http, auth, script, monkeypatch
):
    monkeypatch.setattr("hub.api.inference.KEEP_ALIVE_S", 0.05)
    go = asyncio.Event()

    async def slow(stream, body):
        await go.wait()
        await script.answer(stream, body)

    node.script = slow
    lines = []
    async with http.stream("POST", CHAT, json=ask(), headers=auth) as response:
        assert response.headers["content-type"] == "text/event-stream"
        assert response.headers["x-porten-node"] == node.node_id
        async for line in response.aiter_lines():
            lines.append(line)
            if lines.count(": keep-alive") == 3:
                go.set()
    assert lines[0] == ": keep-alive"
    assert "data: [DONE]" in lines

    go.clear()
    asking = asyncio.create_task(http.post(CHAT, json=ask(stream=False), headers=auth))
    await asyncio.sleep(0.2)
    go.set()
    answer = await asking
    assert answer.json()["choices"]
    assert int(answer.headers["content-length"]) == len(answer.content)


async def test_what_cannot_be_streamed_is_not_bridged_whatever_it_asks(
    bench, http, auth, script, monkeypatch
):
    monkeypatch.setattr("hub.api.inference.KEEP_ALIVE_S", 0.01)
    organisation = (await bench.hub.storage.organisations.list())[0].id
    node = await bench.node(organisation, model="vectors", capabilities=("embeddings",))

    async def slow(stream, body):
        await asyncio.sleep(0.2)
        await script.answer(stream, {})  # engines ignore `stream` here

    node.script = slow
    asked = {"model": "vectors", "input": "x", "stream": True}
    response = await http.post("/v1/embeddings", json=asked, headers=auth)
    assert response.status_code == 200
    assert b": keep-alive" not in response.content


async def test_an_error_after_comments_is_an_event(bench, node, http, auth, script, monkeypatch):
    monkeypatch.setattr("hub.api.inference.KEEP_ALIVE_S", 0.05)

    async def fails(stream, body):
        await asyncio.sleep(0.2)
        stream.reset(script.reset.OVERLOADED)

    node.script = fails
    response = await http.post(CHAT, json=ask(), headers=auth)
    assert response.status_code == 200
    assert json.loads(events(response)[-1][6:])["error"]["code"] == "overloaded"
    assert "[DONE]" not in response.text


class TestDeadline:
    @pytest.fixture
    def settings(self):
        return {"request_deadline_s": 0.5}

    @pytest.mark.parametrize("begun", [False, True])
    async def test_ends_whatever_goes_on(self, bench, node, http, auth, script, begun):
        async def never_ends(stream, body):
            if begun:
                await stream.send_head(Head(status=200, headers=script.sse))
                await stream.send(script.chunk("first"))
            await asyncio.Event().wait()

        node.script = never_ends
        response = await http.post(CHAT, json=ask(), headers=auth)
        assert response.status_code == (200 if begun else 504)
        assert "deadline_exceeded" in response.text
        await node.cancelled.wait()
