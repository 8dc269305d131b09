"""One HTTP exchange with an OpenAI-compatible server, read without a socket or a clock of its own.

Owns what the bytes of an answer mean: HTTP framing (httptools), server-sent events, which chunks carry
tokens, and when each arrived. Bytes and the time of their arrival are handed in; so tests can replay any
timing exactly. Must not know connections, loads or statistics.
"""

from collections.abc import Callable
from typing import Annotated, Final

import httptools
import msgspec

from benchmarks.errors import ExchangeFailed

BODY_KEPT_BYTES: Final = 1 << 20
"""Answers that are read as a whole (errors, replies that are not streamed) are cut here."""

LINE_KEPT_BYTES: Final = 1 << 22
"""A line of a stream that is longer is no chunk of an answer."""

_DONE: Final = b"[DONE]"


class _Delta(msgspec.Struct):
    role: object = None
    content: str | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None
    refusal: str | None = None
    tool_calls: list[object] | None = None


class _Choice(msgspec.Struct):
    delta: _Delta | None = None
    message: _Delta | None = None
    text: str | None = None
    finish_reason: object = None


_Count = Annotated[int, msgspec.Meta(ge=0, lt=1 << 53)]
"""What is below nothing, or above what any program counts exactly, is no count."""


class Usage(msgspec.Struct):
    """The counts a server gives with its answer, in tokens."""

    prompt_tokens: _Count | None = None
    completion_tokens: _Count | None = None


class _Chunk(msgspec.Struct):
    choices: list[_Choice] | None = None
    usage: Usage | None = None
    error: object = None
    sent_at: float | None = None


class _ErrorBody(msgspec.Struct):
    message: str = ""
    code: str | int | None = None
    type: str | None = None


class _Envelope(msgspec.Struct):
    error: _ErrorBody


_decode_chunk: Final[Callable[[bytes], _Chunk]] = msgspec.json.Decoder(_Chunk).decode
_decode_envelope: Final[Callable[[bytes], _Envelope]] = msgspec.json.Decoder(_Envelope).decode


class Reply:
    """The answer to one request, filled in as its bytes arrive. All times are those handed to ``feed``.

    A *token chunk* is a streamed chunk whose first choice carries generated content: text, reasoning or a
    tool call. Chunks with only a role, a finish reason or usage carry none. vLLM's ``bench serve`` takes
    every chunk that has a choice for a token; the two agree on servers that send the role along with the
    first token, and here a server that greets early gains nothing by it.

    Attributes:
        first_token_at: arrival of the first token chunk; none in a reply that is not streamed.
        last_token_at: arrival of the last token chunk, or of the whole reply where it is not streamed.
        gaps: seconds between successive token chunks. Chunks that one read brought together are 0 apart,
            which is how they arrived.
        delays: seconds each token chunk was under way, where the server says in ``sent_at`` when it left;
            only one that reads the same clock can.
        token_chunks: how many token chunks came.
        empty_chunks: how many chunks had a choice, and neither content nor a role nor a finish reason.
        content_bytes: length of all generated content in UTF-8.
        usage: the server's own counts, where it gave any.
        complete: the whole HTTP message is here.
        reusable: the connection may carry another request.

    Args:
        streaming: whether a stream was asked for.
        said: where the pieces of the text are put, for who wants them; they are kept nowhere else.
    """

    __slots__ = (
        "_body",
        "_done",
        "_failure",
        "_framed",
        "_now",
        "_parser",
        "_rest",
        "_said",
        "_streaming",
        "complete",
        "content_bytes",
        "delays",
        "empty_chunks",
        "first_token_at",
        "gaps",
        "last_token_at",
        "reusable",
        "started",
        "status",
        "token_chunks",
        "usage",
    )

    def __init__(self, *, streaming: bool, said: list[str] | None = None) -> None:
        self._parser = httptools.HttpResponseParser(self)
        self._said = said
        self._streaming = streaming
        self._now = 0.0
        self._rest = b""
        self._body = bytearray()
        self._done = False
        self._framed = False
        self._failure: ExchangeFailed | None = None
        self.started = False
        self.status = 0
        self.complete = False
        self.reusable = False
        self.first_token_at: float | None = None
        self.last_token_at: float | None = None
        self.gaps: list[float] = []
        self.delays: list[float] = []
        self.token_chunks = self.empty_chunks = self.content_bytes = 0
        self.usage: Usage | None = None

    def feed(self, data: bytes, now: float) -> bool:
        """Take bytes that arrived at ``now``, in seconds of any one clock; true once complete.

        Raises:
            ExchangeFailed: the bytes are not HTTP.
        """
        self.started = True
        self._now = now
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            raise ExchangeFailed("bad_response", "the server's answer is not HTTP/1.1") from error
        return self.complete

    def feed_eof(self, now: float) -> None:
        """The server closed the connection: a body without a length ends here and is complete."""
        self._now = now
        if self.status and not self._framed and not self.complete:
            self.on_message_complete()
        self.reusable = False

    def verdict(self) -> None:
        """Judge the reply once nothing more can come.

        A stream must have ended with ``[DONE]``: a server that broke off looks complete to HTTP if it
        closes its chunked body cleanly, and must not count as a fast answer.

        Raises:
            ExchangeFailed: it is an error, broken off, or holds no token.
        """
        if self.status >= 300:
            raise _refusal(self.status, bytes(self._body))
        if self._failure is not None:
            raise self._failure
        without_done = self._streaming and not self._done
        if not self.complete or (without_done and not self._framed):
            raise ExchangeFailed("truncated", "the answer broke off before its end")
        if without_done:
            raise ExchangeFailed("no_done", self._without_done())
        if self.last_token_at is None:
            raise ExchangeFailed("no_tokens", "the answer is complete but holds no token")

    def _without_done(self) -> str:
        if self.token_chunks or self.usage:
            return "the stream ended without [DONE]"
        return "the answer is no stream of the API's events: is --base-url where the API begins?"

    # -- httptools' callbacks; the names are its own --------------------------------------------------

    def on_header(self, name: bytes, value: bytes) -> None:
        """Note whether the body says its own length."""
        lowered = name.lower()
        if lowered == b"content-length" or (lowered == b"transfer-encoding" and b"chunked" in value.lower()):
            self._framed = True
        elif lowered == b"content-encoding" and value.lower() != b"identity":
            self._fail(ExchangeFailed("bad_response", "the answer is compressed, which was not asked for"))

    def on_headers_complete(self) -> None:
        """The status is known."""
        self.status = self._parser.get_status_code()

    def on_body(self, data: bytes) -> None:
        """Part of the body: events of a stream are read at once, anything else is kept for the end."""
        if self._streaming and self.status < 300:
            self._read_events(data)
        elif len(self._body) < BODY_KEPT_BYTES:
            self._body += data

    def on_message_complete(self) -> None:
        """The message ends; after an interim one (1xx) the real one follows."""
        if self.status < 200:
            self.status, self._framed = 0, False
            return
        self.complete = True
        self.reusable = self._parser.should_keep_alive()
        if not self._streaming and self.status < 300:
            self._read_whole()

    # -- what the body means --------------------------------------------------------------------------

    def _read_events(self, data: bytes) -> None:
        # One data line is one event: every server of this API writes them so, and it spares a copy.
        lines = (self._rest + data).split(b"\n") if self._rest else data.split(b"\n")
        self._rest = lines.pop()
        if len(self._rest) > LINE_KEPT_BYTES:
            self._rest = b""
            self._fail(ExchangeFailed("bad_response", "a line of the stream is too long for a chunk"))
        for line in lines:
            if line.startswith(b"data:"):
                self._read_event(line[5:].strip())

    def _read_event(self, payload: bytes) -> None:
        if payload == _DONE:
            self._done = True
            return
        try:
            chunk = _decode_chunk(payload)
        except msgspec.DecodeError:
            self._fail(ExchangeFailed("bad_response", "a chunk of the stream is not the API's JSON"))
            return
        if chunk.error is not None:
            self._fail(_error_within(chunk.error))
        if chunk.choices:
            self._read_choice(chunk.choices[0], chunk.sent_at)
        if chunk.usage is not None:
            self.usage = chunk.usage

    def _read_choice(self, choice: _Choice, sent_at: float | None) -> None:
        size = _content_bytes(choice)
        if size:
            self.content_bytes += size
            self._count_token(sent_at)
            if self._said is not None:
                self._said.append(_text(choice))
        elif choice.finish_reason is None and (choice.delta is None or choice.delta.role is None):
            self.empty_chunks += 1

    def _count_token(self, sent_at: float | None) -> None:
        now = self._now
        if sent_at is not None:
            self.delays.append(now - sent_at)
        if self.last_token_at is None:
            self.first_token_at = now
        else:
            self.gaps.append(now - self.last_token_at)
        self.last_token_at = now
        self.token_chunks += 1

    def _read_whole(self) -> None:
        try:
            chunk = _decode_chunk(bytes(self._body))
        except msgspec.DecodeError:
            self._fail(ExchangeFailed("bad_response", "the answer is not the API's JSON"))
            return
        self.usage = chunk.usage
        if chunk.error is not None:
            self._fail(_error_within(chunk.error))
        if chunk.choices and (size := _content_bytes(chunk.choices[0])):
            self.last_token_at = self._now
            self.content_bytes = size
            if self._said is not None:
                self._said.append(_text(chunk.choices[0]))

    def _fail(self, failure: ExchangeFailed) -> None:
        if self._failure is None:
            self._failure = failure


def _content_bytes(choice: _Choice) -> int:
    delta = choice.delta or choice.message
    if delta is None:
        return _utf8_bytes(choice.text)
    if delta.content:  # nearly always the only one
        return _utf8_bytes(delta.content)
    others = (delta.reasoning_content, delta.reasoning, delta.refusal)
    calls = len(msgspec.json.encode(delta.tool_calls)) if delta.tool_calls else 0
    return calls + sum(_utf8_bytes(text) for text in others)


def _utf8_bytes(text: str | None) -> int:
    if not text:
        return 0
    return len(text) if text.isascii() else len(text.encode("utf-8", "replace"))


def _text(choice: _Choice) -> str:
    # What was only thought is no part of a conversation: clients do not send it back.
    said = choice.delta or choice.message
    return (said.content if said else choice.text) or ""


def _refusal(status: int, body: bytes) -> ExchangeFailed:
    try:
        error = _decode_envelope(body).error
    except msgspec.DecodeError:
        return ExchangeFailed(f"http_{status}", f"the server answered with status {status}")
    detail = f"status {status}: {_one_line(error.message)}"
    return ExchangeFailed(_kind(f"http_{status}", error), detail, quotes=True)


def _error_within(raw: object) -> ExchangeFailed:
    try:
        error = msgspec.convert(raw, _ErrorBody)
    except msgspec.ValidationError:
        return ExchangeFailed("stream_error", "the server reported an error within the answer")
    detail = f"error within the answer: {_one_line(error.message)}"
    return ExchangeFailed(_kind("stream_error", error), detail, quotes=True)


def _kind(prefix: str, error: _ErrorBody) -> str:
    # Codes become keys of a report: what is not a plain word (some servers repeat the status) adds nothing.
    code = error.code if isinstance(error.code, str) else error.type
    if code and len(code) <= 64 and code.replace("_", "").replace("-", "").replace(".", "").isalnum():
        return f"{prefix}:{code}"
    return prefix


def _one_line(message: str) -> str:
    return " ".join(message.split()) or "no message"
