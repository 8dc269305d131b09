"""A fake engine on a real socket, whose every byte the test decides."""

import asyncio
import json
import signal
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from ssl import SSLContext
from typing import Any, Self

import pytest

STREAM_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"


@dataclass
class Engine:
    """One exchange as the fake engine sees it; ``answer`` functions get it and write what they like."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    head: str = ""
    body: dict[str, Any] = field(default_factory=dict)
    connection: int = 0

    def send(self, data: bytes) -> None:
        self.writer.write(data)

    def chunk(self, data: bytes) -> None:
        self.writer.write(b"%x\r\n%s\r\n" % (len(data), data))

    def token(self, text: str = "word") -> None:
        self.chunk(b"data: " + json.dumps({"choices": [{"delta": {"content": text}}]}).encode() + b"\n\n")

    def end(self, *, usage: bool = True, tokens: int | None = None) -> None:
        if usage:
            counts = {"prompt_tokens": 5, "completion_tokens": tokens or self.body["max_tokens"]}
            self.chunk(b"data: " + json.dumps({"choices": [], "usage": counts}).encode() + b"\n\n")
        self.chunk(b"data: [DONE]\n\n")
        self.writer.write(b"0\r\n\r\n")

    def whole(self, status: str, body: object) -> None:
        data = json.dumps(body).encode()
        self.writer.write(
            f"HTTP/1.1 {status}\r\nContent-Length: {len(data)}\r\n"
            "Content-Type: application/json\r\n\r\n".encode()
            + data
        )

    def close(self) -> None:
        self.writer.close()


Answer = Callable[[Engine], Awaitable[None]]


async def obedient(engine: Engine) -> None:
    """Answers with as many tokens as were asked for."""
    engine.send(STREAM_HEAD)
    for _ in range(engine.body["max_tokens"]):
        engine.token()
    engine.end()


class FakeEngine:
    """The server around an answer."""

    def __init__(self, answer: Answer, *, tls: SSLContext | None = None) -> None:
        self.answer = answer
        self.requests: list[Engine] = []
        self.connections = 0
        self.gone = asyncio.Event()
        self.url = ""
        self._tls = tls
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=self._tls)
        port = self._server.sockets[0].getsockname()[1]
        self.url = f"{'https' if self._tls else 'http'}://localhost:{port}/v1"
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        self.connections += 1
        number = self.connections
        try:
            with suppress(asyncio.IncompleteReadError, ConnectionError):
                while not writer.is_closing():
                    head = (await reader.readuntil(b"\r\n\r\n")).decode()
                    length = int(head.lower().partition("content-length: ")[2].partition("\r\n")[0])
                    body = json.loads(await reader.readexactly(length))
                    engine = Engine(reader, writer, head, body, number)
                    self.requests.append(engine)
                    await self.answer(engine)
                    await writer.drain()
        finally:
            self.gone.set()
            writer.close()
            with suppress(OSError):
                await writer.wait_closed()


@pytest.fixture
def fake_engine() -> type[FakeEngine]:
    """For tests that share its event loop."""
    return FakeEngine


@pytest.fixture
def stream_head() -> bytes:
    return STREAM_HEAD


@pytest.fixture
def obedient_answer() -> Answer:
    return obedient


@pytest.fixture
def engine_in_thread() -> Iterator[Callable[[Answer], FakeEngine]]:
    """For tests of the command line, which runs an event loop of its own."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    running: list[FakeEngine] = []

    def start(answer: Answer = obedient) -> FakeEngine:
        async def begin() -> FakeEngine:
            return await FakeEngine(answer).__aenter__()

        running.append(asyncio.run_coroutine_threadsafe(begin(), loop).result())
        return running[-1]

    yield start
    for engine in running:
        asyncio.run_coroutine_threadsafe(engine.__aexit__(), loop).result()
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    loop.close()


@pytest.fixture
def hangup() -> Iterator[None]:
    """Programs that are started hear of a closed terminal, even where the tests do not (nohup)."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)
