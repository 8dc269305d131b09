"""An answer and its reader: one who does not read stops the engine, one who waits gets pieces at once."""

import asyncio
from typing import Any

from runtime.engine_http import READ_AHEAD_BYTES, EngineClient
from tests.integration.runtime.engine_http.reading import pieces_of


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
