"""The control API behind the `porten` command line: the owner's hand on the running daemon.

Owns its routes and documents. It is served on a unix socket that only the owner may open, which is all its
authentication. Must not know the command line, the tunnel or requests of inference.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, Protocol

from fastapi import APIRouter, FastAPI
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse

from models.errors import ModelsError
from runtime.errors import ModelUnknown, ReplicaBusy, RuntimeFault
from runtime.progress import LoadProgress

OnProgress = Callable[[LoadProgress], None]
Action = Callable[[OnProgress], Awaitable[None]]

NDJSON = "application/x-ndjson"
_WAITING_STEPS = 64


class Controlled(Protocol):
    """What of the daemon the control API drives."""

    def describe(self) -> dict[str, Any]:
        """The document of `porten status --json`."""

    async def pull(self, model_id: str, *, on_progress: OnProgress | None = None) -> None:
        """Bring a model onto the disk."""

    async def load(self, model_id: str, *, on_progress: OnProgress | None = None) -> None:
        """Make a model ready."""

    async def unload(self, model_id: str) -> None:
        """Stop a model's engines."""

    async def remove(self, model_id: str) -> int:
        """Unload a model and delete its weights; returns the bytes freed."""

    async def take_up_key(self) -> str:
        """Go over to the key that the Hub was told of; returns when that is."""

    async def pause(self, until: float | None) -> dict[str, Any]:
        """Give the machine back; returns how far that is."""

    async def resume(self) -> dict[str, Any]:
        """End the owner's pause; returns what still keeps the node from working."""

    def expect_leave(self) -> None:
        """The owner is about to leave the Hub."""

    def request_stop(self) -> None:
        """Begin the shutdown."""

    def request_restart(self) -> None:
        """Begin the shutdown, and end so that whoever runs the node starts it again."""


def create_app(daemon: Controlled) -> FastAPI:
    """The application."""
    app = FastAPI(title="Porten node control", docs_url=None, redoc_url=None, openapi_url=None)
    app.include_router(_daemon_router(daemon))
    app.include_router(_models_router(daemon))
    app.add_exception_handler(RuntimeFault, _fault)
    app.add_exception_handler(ModelsError, _fault)
    return app


def _daemon_router(daemon: Controlled) -> APIRouter:
    router = APIRouter()

    @router.get("/status")
    async def status() -> dict[str, Any]:
        return daemon.describe()

    @router.post("/key")
    async def take_up_key() -> dict[str, str]:
        return {"taken": await daemon.take_up_key()}

    @router.post("/pause")
    async def pause(until: float | None = None) -> dict[str, Any]:
        return await daemon.pause(until)

    @router.post("/resume")
    async def resume() -> dict[str, Any]:
        return await daemon.resume()

    @router.post("/leave")
    async def leave() -> Response:
        daemon.expect_leave()
        return Response(status_code=204)

    @router.post("/shutdown")
    async def shutdown() -> Response:
        daemon.request_stop()
        return Response(status_code=202)

    @router.post("/restart")
    async def restart() -> Response:
        daemon.request_restart()
        return Response(status_code=202)

    return router


def _models_router(daemon: Controlled) -> APIRouter:
    router = APIRouter()

    @router.post("/pull/{model_id:path}")
    async def pull(model_id: str) -> Response:
        return _progress(lambda told: daemon.pull(model_id, on_progress=told))

    @router.post("/load/{model_id:path}")
    async def load(model_id: str) -> Response:
        return _progress(lambda told: daemon.load(model_id, on_progress=told))

    @router.post("/unload/{model_id:path}")
    async def unload(model_id: str) -> Response:
        await daemon.unload(model_id)
        return Response(status_code=204)

    @router.delete("/models/{model_id:path}")
    async def remove(model_id: str) -> dict[str, int]:
        return {"freed_bytes": await daemon.remove(model_id)}

    return router


async def _fault(request: Request, error: Exception) -> Response:
    del request
    status = 404 if isinstance(error, ModelUnknown) else 409 if isinstance(error, ReplicaBusy) else 500
    return JSONResponse({"error": str(error)}, status)


def _progress(action: Action) -> Response:
    return StreamingResponse(progress_lines(action), media_type=NDJSON)


async def progress_lines(action: Action) -> AsyncIterator[bytes]:
    """One JSON line for each step of a long action, the last with `ok` or `error`.

    A reader that is slow gets the newest steps; one that hangs up ends the action.
    """
    steps: asyncio.Queue[LoadProgress | None] = asyncio.Queue()
    task = asyncio.ensure_future(action(lambda progress: _keep_newest(steps, progress)))
    task.add_done_callback(lambda _: steps.put_nowait(None))
    try:
        while (progress := await steps.get()) is not None:
            yield _line(_progress_document(progress))
        yield _line(_result(task))
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def _keep_newest(steps: "asyncio.Queue[LoadProgress | None]", progress: LoadProgress) -> None:
    if steps.qsize() >= _WAITING_STEPS:
        steps.get_nowait()
    steps.put_nowait(progress)


def _result(task: "asyncio.Future[None]") -> dict[str, Any]:
    if task.cancelled():
        return {"error": "it was ended"}
    error = task.exception()
    if error is None:
        return {"ok": True}
    if isinstance(error, RuntimeFault | ModelsError):
        return {"error": str(error)}
    raise error


def _progress_document(progress: LoadProgress) -> dict[str, Any]:
    return {
        "phase": progress.phase,
        "done_bytes": progress.done_bytes,
        "total_bytes": progress.total_bytes,
    }


def _line(document: dict[str, Any]) -> bytes:
    return json.dumps(document).encode() + b"\n"
