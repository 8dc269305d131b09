"""The OpenAI-compatible API on this machine's loopback: the node's models without a Hub.

Owns routes and who may use them. It asks for no key, so it answers to nobody but this machine: not to a page
from elsewhere in a browser, not to a name that was rebound to loopback. Must not know the tunnel.
"""

import time
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

from fastapi import APIRouter, FastAPI
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from runtime.api_paths import PATHS
from runtime.envelope import ErrorAnswer, unknown_url
from runtime.forward import Forwarder
from runtime.listening import LOOPBACK_NAMES
from runtime.local_inference import Capabilities, Inference, new_request_id
from runtime.metrics import CONTENT_TYPE, NodeMetrics
from runtime.snapshot import ModelView, NodeSnapshot
from runtime.warming import Warmings


def create_app(
    *,
    forwarder: Forwarder,
    snapshot: Callable[[], NodeSnapshot],
    capabilities: Capabilities,
    metrics: NodeMetrics,
    stopping: Callable[[], bool] = lambda: False,
) -> ASGIApp:
    """The application; `stopping` says whether new requests are refused."""
    app = FastAPI(title="Porten node", docs_url=None, redoc_url=None, openapi_url=None)
    app.add_exception_handler(HTTPException, _http_error)
    app.include_router(_models_router(snapshot))
    app.add_api_route("/healthz", _healthz(snapshot, stopping))
    app.add_api_route("/metrics", _exposition(metrics), response_class=Response)

    async def infer(scope: Scope, receive: Receive, send: Send) -> None:
        work = Inference(scope, forwarder, metrics, stopping=stopping, capabilities=capabilities)
        await work.answer(receive, send)

    return _SameMachineOnly(_InferenceFirst(infer, app))


def _models_router(snapshot: Callable[[], NodeSnapshot]) -> APIRouter:
    router = APIRouter(prefix="/v1/models")
    warmings = Warmings()

    @router.get("")
    async def models() -> dict[str, Any]:
        return {"object": "list", "data": [_model(view) for view in snapshot().models if view.fits]}

    # A model's name may hold slashes, so the longer path stands first.
    @router.get("/{model_id:path}/warming")
    async def warming(model_id: str) -> Response:
        return _of(model_id, lambda view: warmings.describe(view, time.monotonic()))

    @router.get("/{model_id:path}")
    async def model(model_id: str) -> Response:
        return _of(model_id, _model)

    def _of(model_id: str, describe: Callable[[ModelView], dict[str, Any]]) -> Response:
        for view in snapshot().models:
            if view.model == model_id:
                return JSONResponse(describe(view))
        return _error(ErrorAnswer(404, "model_not_found", "invalid_request_error", "no such model", "model"))

    return router


def _healthz(
    snapshot: Callable[[], NodeSnapshot], stopping: Callable[[], bool]
) -> Callable[[], Awaitable[dict[str, Any]]]:
    async def healthz() -> dict[str, Any]:
        return {"status": "ok", "accepting": snapshot().accepting and not stopping()}

    return healthz


def _exposition(metrics: NodeMetrics) -> Callable[[], Awaitable[Response]]:
    async def exposition() -> Response:
        return Response(metrics.exposition(), media_type=CONTENT_TYPE)

    return exposition


async def _http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    if error.status_code == 404:
        return _error(unknown_url(request.url.path))
    return _not_allowed(request.method, request.url.path)


def _not_allowed(method: str, path: str) -> Response:
    text = f"{method} is not for {path}"
    return _error(ErrorAnswer(405, "method_not_allowed", "invalid_request_error", text))


def _error(answer: ErrorAnswer) -> Response:
    return Response(answer.body(new_request_id()), answer.status, dict(answer.headers()))


def _model(view: ModelView) -> dict[str, Any]:
    return {
        "id": view.model,
        "object": "model",
        "created": 0,
        "owned_by": "porten",
        "context_length": view.context_length,
        "capabilities": list(view.capabilities),
        "state": view.state,
    }


class _SameMachineOnly:
    """Refuses other origins and other host names: a browser on this machine would lend them its loopback."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and not is_local(scope["headers"]):
            text = "this API answers to programs on this machine only"
            answer = ErrorAnswer(403, "origin_not_allowed", "permission_error", text)
            await _error(answer)(scope, receive, send)
            return
        await self._app(scope, receive, send)


class _InferenceFirst:
    """Answers inference before the framework sees it, whose layers would each touch every piece."""

    def __init__(self, infer: ASGIApp, app: ASGIApp) -> None:
        self._infer = infer
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] not in PATHS:
            await self._app(scope, receive, send)
        elif scope["method"] != "POST":
            await _not_allowed(scope["method"], scope["path"])(scope, receive, send)
        else:
            await self._infer(scope, receive, send)


def is_local(headers: Iterable[tuple[bytes, bytes]]) -> bool:
    """Whether `Host`, and `Origin` where there is one, name this machine's loopback."""
    for name, value in headers:
        text = value.decode("latin-1")
        if name == b"host" and _host_name(text) not in LOOPBACK_NAMES:
            return False
        if name == b"origin" and _host_name(text.partition("://")[2]) not in LOOPBACK_NAMES:
            return False
    return True


def _host_name(authority: str) -> str:
    if authority.startswith("["):
        return authority[: authority.find("]") + 1]
    return authority.partition(":")[0].lower()
