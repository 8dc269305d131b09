"""The HTTP client against a server that does what real ones do, and worse."""

import asyncio
import ssl
from collections.abc import AsyncIterator
from typing import Any

import pytest
import trustme

from runtime.engine_http import MAX_HEADER_BYTES, READ_AHEAD_BYTES, EngineClient, StreamedBody
from runtime.errors import EngineConnectionLost, EngineUnreachable


@pytest.fixture
async def client(engine: Any) -> AsyncIterator[EngineClient]:
    client = EngineClient("127.0.0.1", engine.port)
    yield client
    client.close()


async def pieces_of(response: Any) -> list[tuple[bytes, bool]]:
    found = []
    while piece := await response.read():
        found.append((piece, response.complete))
    return found


async def test_a_body_with_a_length_is_known_to_end_with_its_last_piece(
    engine: Any, client: EngineClient
) -> None:
    async def script(request: Any, connection: Any) -> None:
        await connection.answer(200, b"hello")

    engine.script = script
    response = await client.request("POST", "/x?y=1", [("content-type", "text/plain")], b"ask")
    assert (response.status, response.header("content-type")) == (200, "application/json")
    assert await pieces_of(response) == [(b"hello", True)]
    response.close()
    asked = engine.requests[0]
    assert (asked.method, asked.path, asked.body) == ("POST", "/x?y=1", b"ask")
    assert asked.headers["host"] == f"127.0.0.1:{engine.port}"
    assert asked.headers["content-length"] == "3"


async def test_chunks_come_as_they_were_sent(engine: Any, client: EngineClient) -> None:
    turn = asyncio.Event()

    async def script(request: Any, connection: Any) -> None:
        await connection.stream_head()
        for text in (b"one", b"two"):
            await connection.chunk(text)
            await turn.wait()
            turn.clear()
        await connection.raw(b"5\r\nthree\r\n0\r\n\r\n")

    engine.script = script
    response = await client.request("POST", "/", (), b"")
    assert (await response.read(), response.complete) == (b"one", False)
    turn.set()
    assert (await response.read(), response.complete) == (b"two", False)
    turn.set()
    assert (await response.read(), response.complete) == (b"three", True)
    assert await response.read() == b""


async def test_a_body_without_any_framing_ends_with_the_connection(engine: Any, client: EngineClient) -> None:
    async def script(request: Any, connection: Any) -> None:
        await connection.head(200, connection="close")
        await connection.raw(b"until the end")
        connection.writer.close()

    engine.script = script
    response = await client.request("GET", "/")
    assert b"".join([piece for piece, _ in await pieces_of(response)]) == b"until the end"
    assert response.complete


@pytest.mark.parametrize("cut", range(1, 60, 7))
async def test_an_answer_in_single_bytes_is_the_same_answer(
    engine: Any, client: EngineClient, cut: int
) -> None:
    head = b"HTTP/1.1 200 OK\r\ncontent-type: a/b\r\ntransfer-encoding: chunked\r\n\r\n"
    whole = head + b"3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n"

    async def script(request: Any, connection: Any) -> None:
        for start in range(0, len(whole), cut):
            await connection.raw(whole[start : start + cut])
            await asyncio.sleep(0)

    engine.script = script
    response = await client.request("GET", "/")
    assert response.header("content-type") == "a/b"
    assert b"".join([piece for piece, _ in await pieces_of(response)]) == b"abcde"


async def test_a_connection_is_kept_and_used_again(engine: Any, client: EngineClient) -> None:
    async def script(request: Any, connection: Any) -> None:
        await connection.answer(200, b"x")

    engine.script = script
    for _ in range(3):
        response = await client.request("POST", "/", (), b"{}")
        await pieces_of(response)
        response.close()
    assert engine.connections == 1


async def test_a_kept_connection_that_died_is_replaced_once(engine: Any, client: EngineClient) -> None:
    """llama.cpp's server hangs up after a streamed answer without having said so."""

    async def script(request: Any, connection: Any) -> None:
        await connection.stream_head()
        await connection.chunk(b"x")
        await connection.end()

    engine.script = script
    engine.close_after_answer = True
    for _ in range(5):
        response = await client.request("POST", "/", (), b"{}")
        assert (await response.read()) == b"x"
        while await response.read():
            pass
        response.close()
    assert len(engine.requests) == 5


async def test_a_connection_that_dies_under_the_second_request_is_retried(
    engine: Any, client: EngineClient
) -> None:
    async def script(request: Any, connection: Any) -> None:
        if request.path == "/second" and engine.connections == 1:
            connection.reset()  # it had closed already, and our request crossed that on the wire
            return
        await connection.answer(200, request.body)

    engine.script = script
    first = await client.request("POST", "/first", (), b"1")
    await pieces_of(first)
    first.close()
    second = await client.request("POST", "/second", (), b"2")
    assert await pieces_of(second) == [(b"2", True)]
    assert [request.path for request in engine.requests] == ["/first", "/second", "/second"]


async def test_a_new_connection_that_dies_is_not_retried(engine: Any, client: EngineClient) -> None:
    async def script(request: Any, connection: Any) -> None:
        connection.reset()

    engine.script = script
    with pytest.raises(EngineUnreachable):
        await client.request("POST", "/", (), b"{}")
    assert len(engine.requests) == 1


async def test_an_answer_that_began_is_never_asked_for_again(engine: Any, client: EngineClient) -> None:
    async def script(request: Any, connection: Any) -> None:
        if request.path == "/first":
            await connection.answer(200, b"x")
            return
        await connection.raw(b"HTTP/1.1 200")
        connection.reset()

    engine.script = script
    first = await client.request("POST", "/first", (), b"")
    await pieces_of(first)
    first.close()
    with pytest.raises((EngineConnectionLost, EngineUnreachable)) as caught:
        await client.request("POST", "/", (), b"{}")
    # A RST may overtake the bytes before it: then nothing of the answer was seen, and one retry is due.
    retried = isinstance(caught.value, EngineUnreachable)
    assert len(engine.requests) == (3 if retried else 2)


async def test_a_body_that_breaks_off_is_an_error(engine: Any, client: EngineClient) -> None:
    async def script(request: Any, connection: Any) -> None:
        await connection.stream_head()
        await connection.chunk(b"half")
        connection.writer.close()

    engine.script = script
    response = await client.request("POST", "/", (), b"")
    assert await response.read() == b"half"
    with pytest.raises(EngineConnectionLost):
        await response.read()
    response.close()


async def test_nobody_there_is_said_so(unused_port: int) -> None:
    with pytest.raises(EngineUnreachable, match="does not answer"):
        await EngineClient("127.0.0.1", unused_port).request("GET", "/")


@pytest.mark.parametrize(
    "nonsense",
    [
        b"SSH-2.0-OpenSSH\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"x: y\r\n" * 200 + b"\r\n",
        b"HTTP/1.1 200 OK\r\nx: " + b"y" * (MAX_HEADER_BYTES + 100) + b"\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n",
    ],
)
async def test_what_is_not_http_is_refused(engine: Any, client: EngineClient, nonsense: bytes) -> None:
    async def script(request: Any, connection: Any) -> None:
        await connection.raw(nonsense)
        await connection.gone()

    engine.script = script
    with pytest.raises(EngineConnectionLost):
        await (await client.request("GET", "/")).read()


async def test_closing_early_hangs_up(engine: Any, client: EngineClient) -> None:
    hung_up = asyncio.Event()

    async def script(request: Any, connection: Any) -> None:
        await connection.stream_head()
        await connection.chunk(b"x")
        await connection.gone()
        hung_up.set()

    engine.script = script
    response = await client.request("POST", "/", (), b"")
    await response.read()
    response.close()
    async with asyncio.timeout(5):
        await hung_up.wait()
    assert client.unused


async def test_cancelling_a_request_hangs_up(engine: Any, client: EngineClient) -> None:
    asked, hung_up = asyncio.Event(), asyncio.Event()

    async def script(request: Any, connection: Any) -> None:
        asked.set()
        await connection.gone()
        hung_up.set()

    engine.script = script
    request = asyncio.create_task(client.request("POST", "/", (), b""))
    await asked.wait()
    request.cancel()
    with pytest.raises(asyncio.CancelledError):
        await request
    async with asyncio.timeout(5):
        await hung_up.wait()


async def test_a_reader_that_does_not_read_stops_the_engine_from_writing(
    engine: Any, client: EngineClient
) -> None:
    piece = b"x" * 16_384
    written = 0
    stalled = asyncio.Event()

    async def script(request: Any, connection: Any) -> None:
        nonlocal written
        connection.writer.transport.set_write_buffer_limits(high=0)
        await connection.head(200, content_length=str(len(piece) * 1000))
        for _ in range(1000):
            try:
                async with asyncio.timeout(0.3):
                    await connection.raw(piece)
            except TimeoutError:
                stalled.set()
                await connection.writer.drain()
            written += len(piece)

    engine.script = script
    response = await client.request("GET", "/")
    async with asyncio.timeout(10):
        await stalled.wait()
    assert written < 1000 * len(piece)
    first = await response.read()
    assert len(first) < READ_AHEAD_BYTES + 512 * 1024
    size = len(first)
    while more := await response.read():
        size += len(more)
    assert size == 1000 * len(piece)
    response.close()


@pytest.mark.parametrize("length", [200_000, None])
async def test_a_long_body_is_passed_on_as_it_comes(
    engine: Any, client: EngineClient, length: int | None
) -> None:
    async def script(request: Any, connection: Any) -> None:
        await connection.answer(200, str(len(request.body)).encode())

    async def body() -> AsyncIterator[bytes]:
        for _ in range(20):
            yield b"x" * 10_000

    engine.script = script
    response = await client.request("POST", "/", (), StreamedBody(body(), length))
    assert await response.read() == b"200000"


async def test_an_early_refusal_of_a_long_body_is_heard(engine: Any, client: EngineClient) -> None:
    refused = asyncio.Event()

    async def body() -> AsyncIterator[bytes]:
        yield b"x" * 1000
        await refused.wait()
        for _ in range(100):
            await asyncio.sleep(0)
            yield b"x" * 100_000

    async def raw_server(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 413 No\r\ncontent-length: 3\r\n\r\nbig")
        await writer.drain()
        refused.set()
        await reader.read()
        writer.close()

    async with await asyncio.start_server(raw_server, "127.0.0.1", 0) as server:
        early = EngineClient("127.0.0.1", server.sockets[0].getsockname()[1])
        response = await early.request("POST", "/", (), StreamedBody(body(), 10_001_000))
        assert (response.status, await response.read()) == (413, b"big")
        response.close()
        assert early.unused  # half a request was sent on it: it may carry no other
        early.close()


async def test_a_line_break_in_a_header_is_refused(client: EngineClient) -> None:
    with pytest.raises(ValueError, match="line break"):
        await client.request("POST", "/", [("accept", "x\r\nevil: 1")], b"")


class Taker:
    """What takes pieces at once, until it is told not to."""

    def __init__(self) -> None:
        self.taken: list[bytes] = []
        self.willing = True
        self.asked = asyncio.Event()

    def __call__(self, piece: bytes) -> bool:
        self.asked.set()
        if self.willing:
            self.taken.append(piece)
        return self.willing


async def test_pieces_go_on_at_once_while_the_reader_waits(engine: Any, client: EngineClient) -> None:
    turn, taker = asyncio.Event(), Taker()

    async def script(request: Any, connection: Any) -> None:
        await connection.stream_head()
        for text in (b"one", b"two", b"three"):
            await connection.chunk(text)
            await turn.wait()
            turn.clear()
        await connection.raw(b"4\r\nlast\r\n0\r\n\r\n")

    engine.script = script
    response = await client.request("POST", "/", (), b"")
    assert await response.read() == b"one"
    response.hand_on(taker)
    reading = asyncio.ensure_future(response.read())
    for _ in range(2):
        turn.set()
        await taker.asked.wait()
        taker.asked.clear()
    assert not reading.done()
    turn.set()
    assert (await reading, response.complete) == (b"last", True)
    assert taker.taken == [b"two", b"three"]


async def test_a_piece_that_is_not_taken_is_read_and_the_order_holds(
    engine: Any, client: EngineClient
) -> None:
    turn, taker = asyncio.Event(), Taker()
    taker.willing = False

    async def script(request: Any, connection: Any) -> None:
        await connection.stream_head()
        for number in range(4):
            await connection.chunk(b"piece %d" % number)
            await turn.wait()
            turn.clear()
        await connection.end()

    engine.script = script
    response = await client.request("POST", "/", (), b"")
    assert await response.read() == b"piece 0"
    response.hand_on(taker)
    for number in (1, 2):
        turn.set()
        assert await response.read() == b"piece %d" % number
    taker.willing = True
    reading = asyncio.ensure_future(response.read())
    taker.asked.clear()
    turn.set()
    await taker.asked.wait()
    turn.set()
    assert await reading == b""
    assert taker.taken == [b"piece 3"]


async def test_what_took_one_answer_is_not_asked_of_the_next(engine: Any, client: EngineClient) -> None:
    taker = Taker()

    async def script(request: Any, connection: Any) -> None:
        await connection.stream_head()
        await connection.chunk(b"whole")
        await connection.end()

    engine.script = script
    for _ in range(2):
        response = await client.request("POST", "/", (), b"")
        assert b"".join([piece for piece, _ in await pieces_of(response)]) == b"whole"
        response.hand_on(taker)
        response.close()
    assert (engine.connections, taker.taken) == (1, [])


# over TLS: an endpoint of the owner's on another machine


@pytest.fixture
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
async def encrypted(engine: Any, authority: trustme.CA) -> AsyncIterator[Any]:
    """A second engine of the same kind that speaks TLS, with a certificate for localhost."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("localhost").configure_cert(context)
    other = type(engine)()
    await other.start(context)
    yield other
    await other.stop()


def trusting(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.create_default_context()
    authority.configure_trust(context)
    return context


async def test_over_tls_chunks_come_as_they_were_sent_and_connections_are_kept(
    encrypted: Any, authority: trustme.CA
) -> None:
    turn = asyncio.Event()

    async def script(request: Any, connection: Any) -> None:
        await connection.stream_head()
        await connection.chunk(b"one")
        await turn.wait()
        await connection.chunk(b"x" * 200_000)
        await connection.end()

    encrypted.script = script
    client = EngineClient("localhost", encrypted.port, trusting(authority))
    for _ in range(2):
        turn.clear()
        response = await client.request("POST", "/", (), b"ask")
        assert (await response.read(), response.complete) == (b"one", False)
        turn.set()
        assert sum([len(piece) for piece, _ in await pieces_of(response)]) == 200_000
        response.close()
    assert encrypted.connections == 1
    client.close()


async def test_over_tls_closing_an_answer_early_hangs_up(encrypted: Any, authority: trustme.CA) -> None:
    hung_up = asyncio.Event()

    async def script(request: Any, connection: Any) -> None:
        await connection.stream_head()
        await connection.chunk(b"one")
        await connection.gone()
        hung_up.set()

    encrypted.script = script
    client = EngineClient("localhost", encrypted.port, trusting(authority))
    response = await client.request("POST", "/")
    assert await response.read() == b"one"
    response.close()
    async with asyncio.timeout(10):
        await hung_up.wait()


@pytest.mark.parametrize("wrong", ["authority", "name"])
async def test_a_certificate_that_proves_nothing_is_refused_before_a_byte_is_sent(
    encrypted: Any, authority: trustme.CA, wrong: str
) -> None:
    context = trusting(trustme.CA() if wrong == "authority" else authority)
    host = "localhost" if wrong == "authority" else "127.0.0.1"
    with pytest.raises(EngineUnreachable, match="its certificate is not to be trusted") as caught:
        await EngineClient(host, encrypted.port, context).request("POST", "/", [("authorization", "k")], b"b")
    assert str(encrypted.port) not in str(caught.value)
    assert not caught.value.asked
    assert encrypted.requests == []


async def test_an_engine_that_speaks_no_tls_is_not_asked(engine: Any) -> None:
    with pytest.raises(EngineUnreachable):
        await EngineClient("127.0.0.1", engine.port, ssl.create_default_context()).request("GET", "/")
