"""Runs llama-cpp-python's HTTP server. A script, not a module of Porten: it runs in the ENGINE's environment.

It is started by path with that environment's python, and speaks to its parent as `engine_side.py` says. What
the package's server lacks and every backend must have is added around it: health and metrics, the count of a
streamed answer, JSON schemas by OpenAI's name for them, and that whoever leaves frees the model.
"""

import asyncio
import contextlib
import functools
import importlib
import json
import socket
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).parent))
engine_side = importlib.import_module("engine_side")

_PATHS = ("/v1/chat/completions", "/v1/completions")
_DONE = b"data: [DONE]"
_TEMPLATE = "of the catalog"
_NO_GRAMMAR = b"this engine cannot keep to that schema or tool"


class Work:
    """The one request the model works on: its counts, and whether anybody still waits for it."""

    def __init__(self) -> None:
        self.prompt = self.completion = 0
        self.left = threading.Event()

    def usage(self) -> dict[str, int]:
        """As OpenAI names it."""
        return {
            "prompt_tokens": self.prompt,
            "completion_tokens": self.completion,
            "total_tokens": self.prompt + self.completion,
        }


class Model:
    """Counts what `llama_cpp.Llama` generates, and ends it when nobody waits; one request at a time."""

    def __init__(self, llama_cpp: Any) -> None:
        self._is_end = llama_cpp.llama_vocab_is_eog
        self._generate = llama_cpp.Llama.generate
        self.lock = asyncio.Lock()
        self.work = Work()
        self.running = 0
        watcher = self

        def generate(llama: Any, tokens: Any, *args: Any, **options: Any) -> Iterator[int]:
            return watcher.watched(llama, tokens, *args, **options)

        llama_cpp.Llama.generate = generate
        for name in ("llama_sampler_init_grammar", "llama_sampler_init_grammar_lazy_patterns"):
            refuse_null(importlib.import_module("llama_cpp.llama_cpp"), name)

    def watched(self, llama: Any, tokens: Any, *args: Any, **options: Any) -> Iterator[int]:
        """The tokens of `Llama.generate`, as long as somebody waits for them."""
        work, vocabulary = self.work, llama._model.vocab  # noqa: SLF001 - there is no other way to it
        work.prompt = len(tokens)
        for token in self._generate(llama, tokens, *args, **options):
            if work.left.is_set():
                return
            work.completion += not self._is_end(vocabulary, token)
            yield token


def refuse_null(module: Any, name: str) -> None:
    """Have a maker of grammars raise where it gives none: sampling with that would end the process.

    Schemas and names of tools become grammars too, and not each can be read back.
    """
    make = getattr(module, name)

    def made(*args: Any) -> Any:
        if not (sampler := make(*args)):
            raise ValueError(_NO_GRAMMAR.decode())
        return sampler

    setattr(module, name, made)


class Completions:
    """ASGI middleware around the package's app."""

    model: Model

    def __init__(self, app: Any) -> None:
        self._app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Answer what the app does not know, and watch over what generates."""
        if scope["type"] == "http" and scope["path"] in ("/health", "/metrics"):
            await self._answer(send)
        elif scope["type"] == "http" and scope["path"] in _PATHS:
            await self._generate(scope, receive, send)
        else:
            await self._app(scope, receive, send)

    async def _answer(self, send: Any) -> None:
        text = f"llamacpp:requests_processing {self.model.running}\n".encode()
        headers = [(b"content-type", b"text/plain; version=0.0.4")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": text})

    async def _generate(self, scope: Any, receive: Any, send: Any) -> None:
        body = await engine_side.whole_body(receive)
        if refused := unusable(body):
            await refuse(send, refused)
            return
        asked = engine_side.asks_for_usage(body)
        async with self.model.lock:
            self.model.work = work = Work()
            self.model.running += 1
            watching = asyncio.create_task(await_leaving(receive, work))
            try:
                listen = replayed_until(translated(body), work)
                await self._app(scope, listen, Answer(send, work, asked=asked))
            finally:
                self.model.running -= 1
                work.left.set()
                watching.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await watching


def unusable(body: bytes) -> str:
    """Why a body is refused before the package sees it; empty where it is not."""
    try:
        wanted = json.loads(body)
    except (ValueError, RecursionError):
        return "the body is not JSON"
    if not isinstance(wanted, dict):
        return "the body is not an object"
    # One that it cannot parse ends the whole process.
    if wanted.get("grammar") is not None:
        return "this engine takes no `grammar`"
    # It would answer as if they were not there.
    return "The model takes nothing but text." if any(map(has_more_than_text, messages_of(wanted))) else ""


def messages_of(wanted: dict[str, Any]) -> list[Any]:
    """The messages, if they are a list."""
    messages = wanted.get("messages")
    return messages if isinstance(messages, list) else []


def has_more_than_text(message: Any) -> bool:
    """Whether a message has parts that are pictures, sounds or files."""
    parts = message.get("content") if isinstance(message, dict) else None
    return isinstance(parts, list) and any(
        isinstance(part, dict) and part.get("type") not in ("text", "refusal") for part in parts
    )


async def refuse(send: Any, message: str) -> None:
    """Answer 400 in OpenAI's envelope."""
    error = {"message": message, "type": "invalid_request_error", "param": None, "code": None}
    headers = [(b"content-type", b"application/json")]
    await send({"type": "http.response.start", "status": 400, "headers": headers})
    await send({"type": "http.response.body", "body": json.dumps({"error": error}).encode()})


async def await_leaving(receive: Any, work: Work) -> None:
    """Wait until the client hangs up."""
    while (await receive())["type"] != "http.disconnect":
        pass
    work.left.set()


def replayed_until(body: bytes, work: Work) -> Any:
    """An ASGI `receive` that gives the body, then nothing until the client has left."""
    first = [{"type": "http.request", "body": body, "more_body": False}]

    async def receive() -> Any:
        if first:
            return first.pop()
        await asyncio.to_thread(work.left.wait)
        return {"type": "http.disconnect"}

    return receive


class Answer:
    """An ASGI `send` that mends the package's answers on their way.

    The count goes before the end of a stream, as a chunk or, if unasked, as a comment; a request of wrong
    types is the client's fault and not the server's; a tool's name is said once.
    """

    def __init__(self, send: Any, work: Work, *, asked: bool) -> None:
        self._send, self._work, self._asked = send, work, asked
        self._named: set[int] = set()
        self._start: dict[str, Any] | None = None

    async def __call__(self, message: dict[str, Any]) -> None:
        """Send a message on."""
        if message["type"] == "http.response.start" and message["status"] == 500:
            self._start = message  # until its body tells whose fault it is
            return
        body = message.get("body", b"")
        if self._start is not None:
            start, self._start = self._start, None
            theirs = b"validation error" in body or _NO_GRAMMAR in body
            await self._send({**start, "status": 400} if theirs else start)
        await self._send({**message, "body": self._mended(body)} if body else message)

    def _mended(self, body: bytes) -> bytes:
        if body.startswith(b"data: {") and b'"tool_calls"' in body:
            return named_once(body, self._named)
        if not body.lstrip().startswith(_DONE):
            return body
        chunk = json.dumps({"choices": [], "usage": self._work.usage()}, separators=(",", ":")).encode()
        event = b"data: " + chunk
        return (event + b"\n\n" if self._asked else engine_side.as_comment(event)) + body


def named_once(event: bytes, named: set[int]) -> bytes:
    """A tool call's name and id in its first chunk only: OpenAI's clients add up what every chunk says."""
    chunk = json.loads(event.removeprefix(b"data:"))
    for choice in chunk.get("choices", ()):
        for call in choice.get("delta", {}).get("tool_calls") or ():
            if call["index"] in named:
                call.pop("id", None)
                call["function"].pop("name", None)
            named.add(call["index"])
    return b"data: " + json.dumps(chunk).encode() + b"\n\n"


def translated(body: bytes) -> bytes:
    """OpenAI's `json_schema` in the words of this server; anything else as it came."""
    try:
        wanted = json.loads(body)
        schema = wanted["response_format"]["json_schema"]["schema"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return body
    wanted["response_format"] = {"type": "json_object", "schema": schema}
    return json.dumps(wanted).encode()


def serve() -> None:
    """Start the server, announce it, and stay until the parent closes stdin."""
    began = time.monotonic()
    wanted = engine_side.begin()
    engine_side.KeyGuard.key = wanted["key"]
    log = engine_side.Log()
    engine_side.attend(log)
    llama_cpp = importlib.import_module("llama_cpp")
    Completions.model = Model(llama_cpp)
    if wanted["pooling"]:
        pool(llama_cpp, wanted["pooling"])
    app = make_app(wanted["settings"], wanted["chat_template"])
    listening = socket.socket()
    listening.bind((wanted["host"], 0))
    engine_side.announce_later(log, wanted, listening.getsockname()[1], began)
    uvicorn = importlib.import_module("uvicorn")
    uvicorn.Server(uvicorn.Config(app, access_log=False)).run(sockets=[listening])


def pool(llama_cpp: Any, pooling: str) -> None:
    """Have every model make its embeddings this way: the server has no settings for it.

    It would cut a text that is too long without a word, and leave vectors as long as they happen to be.
    """
    kind, model = getattr(llama_cpp, f"LLAMA_POOLING_TYPE_{pooling.upper()}"), llama_cpp.Llama
    model.__init__ = functools.partialmethod(model.__init__, pooling_type=kind)
    model.embed = functools.partialmethod(model.embed, normalize=True, truncate=False)


def use_template(template: str) -> str:
    """Register a format of the template, made once the model is there to say its tokens; returns its name."""
    formats = importlib.import_module("llama_cpp.llama_chat_format")
    made: list[Any] = []

    def answer(*, llama: Any, **options: Any) -> Any:
        if not made:
            said = llama._model.token_get_text  # noqa: SLF001 - there is no other way to it
            tokens = {"eos_token": said(llama.token_eos()), "bos_token": said(llama.token_bos())}
            made.append(formats.Jinja2ChatFormatter(template, **tokens).to_chat_handler())
        return made[0](llama=llama, **options)

    formats.register_chat_completion_handler(_TEMPLATE)(answer)
    return _TEMPLATE


def make_app(settings: dict[str, Any], template: str) -> Any:
    """The package's app, its model loaded, behind the key."""
    if template:
        settings = {**settings, "chat_format": use_template(template)}
    known = importlib.import_module("llama_cpp.server.settings").Settings(**settings)
    app = importlib.import_module("llama_cpp.server.app").create_app(settings=known)
    return engine_side.KeyGuard(Completions(app))


if __name__ == "__main__":
    serve()
