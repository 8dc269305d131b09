"""What the scripts that run in an engine's environment share: how they live with the node that started them.

Imported by path from beside those scripts: an engine's environment has no package of Porten's. Each
speaks to its parent so:

- stdin, first line: one JSON object with the parameters (a key belongs neither in `argv` nor in `environ`);
- stdin, end of file: the parent is gone, so this process goes too;
- stdout: one JSON line `{"host", "port", "load_s"}` once it answers;
- stderr: the engine's own log while it loads. From the moment requests can come nothing is logged but a
  crash: engines quote pieces of requests.
"""

import atexit
import ctypes
import faulthandler
import json
import os
import resource
import secrets
import signal
import sys
import threading
import time
from typing import Any

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_BETWEEN_LOOKS_S = 0.05
_LOOK_TIMEOUT_S = 5.0
_PIECE = 65536
_LAST_WORDS_S = 1.0
_STREAMING_PATHS = ("/v1/chat/completions", "/v1/completions")


def begin() -> dict[str, Any]:
    """Read the parameters, and see that this process neither outlives its parent nor leaves a core file."""
    # A core file would hold prompts and answers.
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    wanted: dict[str, Any] = json.loads(_read_line())
    stay_with(wanted["parent_pid"])
    adopt_orphans()
    return wanted


def attend(log: "Log") -> None:
    """From here on: pass the log on, and go when the parent closes stdin. Starts threads: fork before it."""
    pumping = threading.Thread(target=log.pump, daemon=True)
    pumping.start()
    atexit.register(log.finish, pumping)  # what it said last, a reason perhaps, must not be lost
    threading.Thread(target=await_end, daemon=True).start()


def _read_line() -> bytes:
    """The first line of stdin and not a byte more: the rest is waited for elsewhere."""
    line = b""
    while not line.endswith(b"\n"):
        byte = os.read(0, 1)
        if not byte:
            os._exit(1)
        line += byte
    return line


def stay_with(parent: int) -> None:
    """Die with the parent, and let every process that is forked from this one do the same."""
    die_with(parent)
    here = os.getpid()

    def in_child() -> None:
        nonlocal here
        die_with(here)
        here = os.getpid()

    os.register_at_fork(after_in_child=in_child)


def adopt_orphans() -> None:
    """Whatever loses its parent below this process stays below it, where the node finds it.

    Without this it would be init's child: a session and an environment of its own would hide it then
    (prctl(2), PR_SET_CHILD_SUBREAPER).
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def die_with(parent: int) -> None:
    """Ask the kernel for SIGKILL when the parent dies, even while loading keeps every thread of ours busy."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:  # it died before the line above
        os._exit(1)


def await_end() -> None:
    """Go when the parent closes stdin; the children follow."""
    while os.read(0, _PIECE):
        pass
    os._exit(0)


class Log:
    """Takes both outputs of this process and its children; `pump` passes them on until it is closed."""

    def __init__(self) -> None:
        self.announcements = os.dup(1)
        self._to = os.dup(2)
        self._open = True
        self._from, writing = os.pipe()
        os.dup2(writing, 1)
        os.dup2(writing, 2)
        os.close(writing)

    def pump(self) -> None:
        """Pass on what comes, until all who write have ended."""
        while piece := os.read(self._from, _PIECE):
            if self._open:
                os.write(self._to, piece)

    def finish(self, pumping: threading.Thread) -> None:
        """Let what is in the pipe get through; children that hold it open are not waited for long."""
        if not self._open:  # from the first request on, last words may hold pieces of one
            return
        for standard in (1, 2):
            os.dup2(self._to, standard)
        pumping.join(_LAST_WORDS_S)

    def close(self) -> None:
        """Pass nothing on any more; only the place of a crash still reaches the log."""
        self._open = False
        faulthandler.enable(file=self._to)


def announce(log: Log, wanted: dict[str, Any], port: int, began: float) -> None:
    """Wait until the server answers, close the log, and say where; `began` is of `time.monotonic`."""
    while not _answers(wanted, port):
        time.sleep(_BETWEEN_LOOKS_S)
    log.close()
    said = {"host": wanted["host"], "port": port, "load_s": time.monotonic() - began}
    os.write(log.announcements, json.dumps(said).encode() + b"\n")
    os.close(log.announcements)


def announce_later(log: Log, wanted: dict[str, Any], port: int, began: float) -> None:
    """The same, in a thread beside the server that is about to start."""
    threading.Thread(target=announce, args=(log, wanted, port, began), daemon=True).start()


def _answers(wanted: dict[str, Any], port: int) -> bool:
    import http.client  # noqa: PLC0415 - tens of milliseconds, which an engine that tells its port need not pay

    connection = http.client.HTTPConnection(wanted["host"], port, timeout=_LOOK_TIMEOUT_S)
    try:
        connection.request("GET", "/health", headers={"authorization": f"Bearer {wanted['key']}"})
        return connection.getresponse().status == 200
    except OSError:
        return False
    finally:
        connection.close()


class KeyGuard:
    """ASGI middleware that answers nobody who lacks the key: engines' own guards leave paths open."""

    key = ""

    def __init__(self, app: Any) -> None:
        self._app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Pass a request on, or refuse it."""
        if scope["type"] != "lifespan" and not self._has_key(scope):
            if scope["type"] == "http":
                await send({"type": "http.response.start", "status": 401, "headers": []})
                await send({"type": "http.response.body", "body": b""})
            else:
                await send({"type": "websocket.close", "code": 1008})
            return
        await self._app(scope, receive, send)

    def _has_key(self, scope: Any) -> bool:
        shown = dict(scope["headers"]).get(b"authorization", b"")
        return secrets.compare_digest(shown, b"Bearer " + self.key.encode())


class UnaskedUsage:
    """ASGI middleware that turns the chunk with the tokens' count into a comment, unless it was asked for.

    The engine is told to count for every stream, since the node must know; OpenAI's clients may trip over a
    chunk without choices that they did not ask for, and every reader of server-sent events passes over a
    comment.
    """

    def __init__(self, app: Any) -> None:
        self._app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Pass a request on, with its body read first."""
        if scope["type"] != "http" or scope["path"] not in _STREAMING_PATHS:
            await self._app(scope, receive, send)
            return
        body = await whole_body(receive)

        async def counted(message: dict[str, Any]) -> None:
            if b'"choices":[]' in message.get("body", b""):
                message = {**message, "body": as_comment(message["body"])}
            await send(message)

        await self._app(scope, replayed(body, receive), send if asks_for_usage(body) else counted)


async def whole_body(receive: Any) -> bytes:
    """The request's body; what came of it where the client has gone."""
    pieces, more = [], True
    while more:
        message = await receive()
        pieces.append(message.get("body", b""))
        more = message.get("more_body", False)
    return b"".join(pieces)


def replayed(body: bytes, receive: Any) -> Any:
    """An ASGI `receive` that gives the body again, and then waits as the real one does."""
    first: list[dict[str, Any]] = [{"type": "http.request", "body": body, "more_body": False}]

    async def replay() -> Any:
        return first.pop() if first else await receive()

    return replay


def asks_for_usage(body: bytes) -> bool:
    """Whether a stream is asked for its count; a body that cannot be read is the engine's to refuse."""
    try:
        return bool(json.loads(body)["stream_options"]["include_usage"])
    except (ValueError, KeyError, TypeError, RecursionError):
        return False


def as_comment(event: bytes) -> bytes:
    """`: usage {…}` in place of an event that holds nothing else; any other event as it is."""
    try:
        chunk = json.loads(event.removeprefix(b"data:"))
    except ValueError:
        return event
    if chunk.get("choices") != [] or "usage" not in chunk:
        return event
    return b": usage " + json.dumps(chunk["usage"]).encode() + b"\n\n"
