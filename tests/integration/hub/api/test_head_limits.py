"""What a peer may send or withhold before the Hub knows it: heads, trailers, silence."""

import asyncio
import contextlib
import resource
import socket
import subprocess
import sys

import pytest

from hub.api import guarded_http

LIMIT = guarded_http.HEAD_BYTES
CHUNKED = b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n"


@pytest.fixture
async def connect(bench):
    """Opens raw connections to the Hub."""
    writers = []

    async def opened():
        host, port = bench.url.removeprefix("http://").split(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        writers.append(writer)
        return reader, writer

    yield opened
    for writer in writers:
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()


async def ended(reader):
    """All that still comes, once the Hub has closed the connection."""
    async with asyncio.timeout(10):
        try:
            return await reader.read()
        except ConnectionResetError:
            return b""


async def answer(reader):
    """The status of one answer, whose body is read as well."""
    async with asyncio.timeout(10):
        head = await reader.readuntil(b"\r\n\r\n")
        lengths = [line[15:] for line in head.split(b"\r\n") if line.startswith(b"content-length:")]
        await reader.readexactly(int(lengths[0]))
    return int(head.split(b" ")[1])


async def flood(writer, piece, limit):
    """Send the piece again and again until the Hub has closed; how many bytes it let through."""
    sent = 0
    with contextlib.suppress(ConnectionError):
        while sent < limit:
            writer.write(piece)
            await writer.drain()
            sent += len(piece)
            await asyncio.sleep(0)
    return sent


@pytest.mark.parametrize(
    "head",
    [
        b"GET /healthz HTTP/1.1\r\nhost: x\r\nx-a: " + b"a" * LIMIT,
        b"GET /healthz HTTP/1.1\r\n" + b"x-a: b\r\n" * (LIMIT // 8) + b"\r\n",
        b"GET /" + b"a" * LIMIT,
        b"GET /healthz HTTP/1.1\r\n" + b"x" * LIMIT,
    ],
    ids=["value", "fields", "target", "name"],
)
async def test_a_head_over_the_limit_is_refused(connect, head):
    reader, writer = await connect()
    writer.write(head)
    assert (await ended(reader)).startswith(b"HTTP/1.1 431 ")


async def test_a_head_within_the_limit_is_not(connect):
    reader, writer = await connect()
    for _ in range(2):
        writer.write(b"GET /healthz HTTP/1.1\r\nhost: x\r\nx-a: " + b"a" * (LIMIT - 1000) + b"\r\n\r\n")
        assert await answer(reader) == 200


async def test_a_later_head_on_the_same_connection_is_held_to_the_limit(connect):
    reader, writer = await connect()
    writer.write(b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n")
    assert await answer(reader) == 200
    sent = await flood(writer, b"GET /healthz HTTP/1.1\r\nx: " + b"a" * 16384, 64 * LIMIT)
    assert sent < 64 * LIMIT


async def test_a_large_body_before_a_pipelined_head_is_not_counted_as_head(connect):
    reader, writer = await connect()
    body = b"a" * 20 * 1024
    post = b"POST /enroll/v1/token HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n" % len(body)
    for _ in range(6):
        writer.write(post + body)
    assert [await answer(reader) for _ in range(6)] == [400] * 6


async def test_trailers_are_not_headers(bench, connect):
    key = await bench.key(await bench.organisation())
    reader, writer = await connect()
    writer.write(CHUNKED + b"\r\n2\r\n{}\r\n0\r\nauthorization: Bearer " + key.encode() + b"\r\n\r\n")
    assert await answer(reader) == 401


@pytest.mark.parametrize("piece", [b"t: a\r\n" * 2000, b"a" * 16384], ids=["many", "one"])
async def test_trailers_are_limited(bench, connect, piece):
    key = await bench.key(await bench.organisation())
    reader, writer = await connect()
    writer.write(CHUNKED + f"authorization: Bearer {key}\r\n\r\n1\r\na\r\n0\r\nt: ".encode())
    assert await flood(writer, piece, 256 * LIMIT) < 256 * LIMIT
    await ended(reader)


class TestTime:
    @pytest.fixture(autouse=True)
    def short(self, monkeypatch):
        monkeypatch.setattr(guarded_http, "HEAD_TIMEOUT_S", 0.1)

    @pytest.mark.parametrize("sent", [b"", b"GET /healthz HT", b"GET /healthz HTTP/1.1\r\nx: ", b"\r\n"])
    async def test_a_connection_that_asks_nothing_is_closed(self, connect, sent):
        reader, writer = await connect()
        writer.write(sent)
        assert await ended(reader) == b""

    @pytest.mark.parametrize("sent", [b"\r\n", b"GET"])
    async def test_so_is_one_that_has_asked_before(self, connect, sent):
        reader, writer = await connect()
        writer.write(b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n")
        assert await answer(reader) == 200
        writer.write(sent)
        assert await ended(reader) == b""

    async def test_an_answer_may_take_longer(self, bench, connect, script):
        organisation = await bench.organisation()
        key = await bench.key(organisation)
        node = await bench.node(organisation)
        others = [await connect() for _ in range(2)]

        async def outlasts_silent_connections(stream, request):
            for other, _ in others:
                await ended(other)
            others[:] = [await connect()]
            await ended(others[0][0])
            await script.answer(stream, request)

        node.script = outlasts_silent_connections
        reader, writer = await connect()
        body = b'{"model":"tiny","messages":[]}'
        head = f"POST /v1/chat/completions HTTP/1.1\r\nauthorization: Bearer {key}\r\nhost: x\r\n"
        writer.write(f"{head}content-length: {len(body)}\r\n\r\n".encode() + body + b"\r\n")
        assert await answer(reader) == 200


def test_the_process_may_hold_as_many_connections_as_the_system_allows():
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    code = (
        "import resource as r\nfrom hub.api.guarded_http import allow_connections\n"
        f"r.setrlimit(r.RLIMIT_NOFILE, (256, {hard}))\nallow_connections()\n"
        "print(*r.getrlimit(r.RLIMIT_NOFILE))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == [str(hard)] * 2


async def test_a_peer_that_takes_nothing_of_its_answers_is_cut_off(bench, monkeypatch):
    monkeypatch.setattr("hub.api.guarded_http.UNREAD_S", 0.2)
    host, port = bench.url.removeprefix("http://").split(":")
    with socket.socket() as peer:
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        await asyncio.to_thread(peer.connect, (host, int(port)))
        ask = b"GET /login HTTP/1.1\r\nhost: x\r\n\r\n" * 64
        async with asyncio.timeout(20):
            while not await asyncio.to_thread(is_cut_off, peer, ask):
                pass


def is_cut_off(peer, data):
    peer.settimeout(0.1)
    try:
        peer.sendall(data)
    except TimeoutError:
        return False
    except ConnectionError:
        return True
    return False
