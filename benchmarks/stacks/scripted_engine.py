"""A scripted engine: answers of small chunks at a set pace, or whole and at once, from a process of its own.

Owns the pace and the bytes of an answer, which are those of a chat completion. It does as little as it can
for a chunk, since it shares the machine with what is measured. Must not know Hubs, nodes or measurements.

The model's name says the pace (`schedules`): `scripted-20ms` sends a chunk every 20 ms. Any pace is answered;
`/v1/models` lists those that the process was started with. Each chunk says in `sent_at` when it was handed to
the socket, in seconds of the machine's monotonic clock, which all its processes share. Of answers with an
exact schedule the engine keeps its own record, which `GET /record` hands over.
"""

import asyncio
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final, cast

import httptools
import msgspec
import uvloop

from benchmarks.stacks.schedules import Schedule, model_name

BACKLOG: Final = 1024
_GOLDEN: Final = 0.6180339887498949
"""Multiples of it, less their whole part, lie evenly however many there are: no two streams keep step."""

_HEAD: Final = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
_WHOLE_HEAD: Final = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%b"
_REFUSAL: Final = b"HTTP/1.1 404 Not Found\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{}"
_EVENT: Final = (
    'data: {"id":"chatcmpl-Yz1bDqXo3Pn5r7Tk","object":"chat.completion.chunk","created":1767225600,'
    '"model":"%s","choices":[{"index":0,"delta":{"content":" word"},"finish_reason":%s}],'
    '"sent_at":%%.6f}\n\n'
)
_END: Final = (
    'data: {"id":"chatcmpl-Yz1bDqXo3Pn5r7Tk","object":"chat.completion.chunk","created":1767225600,'
    '"model":"%s","choices":[],"usage":{"prompt_tokens":32,"completion_tokens":%d,"total_tokens":%d}}\n\n'
    "data: [DONE]\n\n"
)
_WHOLE: Final = (
    '{"id":"chatcmpl-Yz1bDqXo3Pn5r7Tk","object":"chat.completion","created":1767225600,"model":"%s",'
    '"choices":[{"index":0,"message":{"role":"assistant","content":"%s"},"finish_reason":"stop"}],'
    '"usage":{"prompt_tokens":32,"completion_tokens":%d,"total_tokens":%d}}'
)


def listing(paces_ms: Sequence[int]) -> bytes:
    """The answer to who asks for the models, head and body."""
    models = [{"id": model_name(pace), "object": "model"} for pace in paces_ms]
    body = msgspec.json.encode({"object": "list", "data": models})
    return _WHOLE_HEAD % (len(body), body)


def whole_answer(model: str, count: int) -> bytes:
    """An answer of `count` words that is not streamed, head and body."""
    body = (_WHOLE % (model, " word" * count, count, count + 32)).encode()
    return _WHOLE_HEAD % (len(body), body)


class Pacer:
    """Calls back at a millisecond of the loop's clock: one timer for all streams, whose cost is shared."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._due: dict[int, list[Callable[[int], None]]] = {}
        self._reached = 0
        self._timer: asyncio.TimerHandle | None = None
        self._begun = 0

    @property
    def now(self) -> int:
        """Milliseconds of the loop's clock."""
        return int(self._loop.time() * 1000)

    def phase(self, interval_ms: int) -> int:
        """Where in its interval the next stream keeps its beat, 1 to `interval_ms`."""
        self._begun += 1
        return 1 + int(interval_ms * ((self._begun * _GOLDEN) % 1))

    def call_at(self, moment: int, callback: Callable[[int], None]) -> None:
        """Call once at that millisecond, or at the next if it has passed."""
        if self._timer is None:
            self._reached = self.now
            self._timer = self._loop.call_later(0.001, self._tick)
        self._due.setdefault(max(moment, self._reached + 1), []).append(callback)

    def _tick(self) -> None:
        now = self.now
        for moment in range(self._reached + 1, now + 1):
            self._reached = moment
            for callback in self._due.pop(moment, ()):
                callback(now)
        self._timer = self._loop.call_later(0.001, self._tick) if self._due else None


@dataclass(slots=True)
class Record:
    """What the engine itself knows of one answer, in seconds of the machine's monotonic clock."""

    received_at: float
    sent_at: list[float] = field(default_factory=list)


class Answer:
    """One streamed answer: a chunk at each of its moments, never two for having been late.

    Args:
        write: takes bytes for the socket.
        pacer: calls at the moments.
        schedule: when chunks are due; its model is told in each.
        count: how many chunks.
        number: of the answer, by which its chance is drawn.
        on_end: called after the last bytes.
    """

    def __init__(
        self,
        write: Callable[[bytes], None],
        pacer: Pacer,
        *,
        schedule: Schedule,
        count: int,
        number: int = 0,
        on_end: Callable[[], None],
    ) -> None:
        self._write = write
        self._pacer = pacer
        self._schedule = schedule
        self._gaps: Iterator[int] = schedule.gaps(number)
        self._event = (_EVENT % (schedule.model, "null")).encode()
        self._model = schedule.model
        self._count = count
        self._left = count
        self._on_end = on_end
        self._due = 0
        self._held = False  # a moment passed while the reader was too slow for more
        self.paused = False
        self.stopped = False
        self.record: Record | None = None

    def begin(self) -> None:
        """Send the first chunk, with the head: at once, or when its schedule says."""
        now, first = self._pacer.now, self._schedule.first_ms
        if first is None:
            self._due = now + self._pacer.phase(self._schedule.interval_ms)
            self._write(_HEAD + self._next())
            self._go_on()
            return
        self.record = Record(time.perf_counter())
        self._write(_HEAD)
        self._due = now + max(first, 1)  # a step of the pacer
        self._pacer.call_at(self._due, self._beat)

    def resume(self) -> None:
        """The reader has caught up."""
        self.paused = False
        if self._held:
            self._held = False
            self._pacer.call_at(self._pacer.now, self._beat)

    def _beat(self, now: int) -> None:
        if self.stopped:
            return
        if self.paused:
            self._held = True
            return
        self._due = max(self._due + next(self._gaps), now + 1)
        self._write(self._next())
        self._go_on()

    def _go_on(self) -> None:
        if self._left:
            self._pacer.call_at(self._due, self._beat)
            return
        self._write(_chunk((_END % (self._model, self._count, self._count + 32)).encode()) + b"0\r\n\r\n")
        self._on_end()

    def _next(self) -> bytes:
        self._left -= 1
        if not self._left:
            self._event = (_EVENT % (self._model, '"stop"')).encode()
        now = time.perf_counter()
        if self.record is not None:
            self.record.sent_at.append(now)
        return _chunk(self._event % now)


def _chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


class _Asked(msgspec.Struct):
    model: str
    max_tokens: int = 1
    max_completion_tokens: int | None = None
    stream: bool = False


class _Connection(asyncio.Protocol):
    """One connection, one answer at a time. The `on_…` methods are the parser's callbacks."""

    def __init__(self, pacer: Pacer, records: list[Record], listing: bytes) -> None:
        self._pacer = pacer
        self._records = records
        self._listing = listing
        self._url = b""
        self._transport: asyncio.Transport | None = None
        self._parser = httptools.HttpRequestParser(self)
        self._body = bytearray()
        self._answer: Answer | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's own class, of another family

    def data_received(self, data: bytes) -> None:
        assert self._transport is not None
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade, msgspec.DecodeError):
            self._transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio's signature
        if self._answer is not None:
            self._answer.stopped = True

    def pause_writing(self) -> None:
        if self._answer is not None:
            self._answer.paused = True

    def resume_writing(self) -> None:
        if self._answer is not None:
            self._answer.resume()

    def on_url(self, url: bytes) -> None:
        self._url = url

    def on_body(self, data: bytes) -> None:
        self._body += data

    def _told(self) -> bytes:
        if self._url == b"/record":
            return self._hand_over()
        return self._listing if self._url == b"/v1/models" else _REFUSAL

    def on_message_complete(self) -> None:
        assert self._transport is not None
        if self._parser.get_method() == b"GET":
            self._transport.write(self._told())
            return
        asked = msgspec.json.decode(self._body, type=_Asked)
        self._body.clear()
        schedule, count = Schedule.of(asked.model), asked.max_completion_tokens or asked.max_tokens
        if schedule is None or count < 1 or self._answer is not None:
            self._transport.write(_REFUSAL)
            return
        if not asked.stream:
            self._transport.write(whole_answer(asked.model, count))
            return
        answer = self._answer = Answer(
            self._transport.write,
            self._pacer,
            schedule=schedule,
            count=count,
            number=len(self._records),
            on_end=self._ended,
        )
        answer.begin()
        if answer.record is not None:
            self._records.append(answer.record)

    def _hand_over(self) -> bytes:
        body = msgspec.json.encode(self._records)
        self._records.clear()
        return _WHOLE_HEAD % (len(body), body)

    def _ended(self) -> None:
        self._answer = None


async def serve(paces_ms: Sequence[int]) -> None:
    """Serve on a free port of this machine until SIGTERM; the address is said on stdout."""
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, stop.set)
    pacer, records, models = Pacer(loop), list[Record](), listing(paces_ms)
    server = await loop.create_server(
        lambda: _Connection(pacer, records, models), "127.0.0.1", 0, backlog=BACKLOG
    )
    sys.stdout.write(f"listening engine=127.0.0.1:{server.sockets[0].getsockname()[1]}\n")
    sys.stdout.flush()
    await stop.wait()
    server.close()


def main() -> None:
    """The process. Arguments: the paces that it lists (ms)."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve([int(pace) for pace in sys.argv[1:]]))


if __name__ == "__main__":
    main()
