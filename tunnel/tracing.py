"""The steps of a request as spans, from the Hub through the tunnel to the engine.

Owns how a step is begun, named and handed on (W3C Trace Context, https://www.w3.org/TR/trace-context/).
Off unless `open_tracing` is given an endpoint: OpenTelemetry's SDK is not loaded then, and a step costs a
method call. A span holds names, identifiers and counts: never a word of a prompt, an answer or an error.
"""

from __future__ import annotations

from types import TracebackType
from typing import Self

TRACEPARENT = "traceparent"
"""The header that says which span a step belongs to, over HTTP and in OPEN."""

Value = str | bool | int | float


class Span:
    """One step, for the length of a `with` block. This one is not traced, and neither are those in it.

    Attributes:
        traceparent: what the next program is told; None where there is nothing to join.
    """

    __slots__ = ()

    traceparent: str | None = None

    def __enter__(self) -> Self:
        """Begin."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End; an exception's type is noted, its words are not."""

    def child(self, name: str, **attributes: Value) -> Span:
        """A step within this one."""
        del name, attributes
        return self

    def set(self, **attributes: Value) -> None:
        """Note what is known of the step by now."""


NO_SPAN = Span()


class Tracing:
    """Where spans begin. This one traces nothing."""

    def span(self, name: str, parent: str | None = None, **attributes: Value) -> Span:
        """A first step in this program, within the `traceparent` of another where there is a valid one."""
        del name, parent, attributes
        return NO_SPAN

    @property
    def enabled(self) -> bool:
        """Whether anything is traced."""
        return False

    def close(self) -> None:
        """Send what is left."""


NO_TRACING = Tracing()


def open_tracing(endpoint: str | None, *, service: str, version: str, ratio: float = 1.0) -> Tracing:
    """Trace to an OTLP endpoint, or nothing where there is none.

    Args:
        endpoint: URL that takes OTLP over HTTP, such as ``http://collector:4318/v1/traces``.
        service: what this program is called in the traces.
        version: its version.
        ratio: share of traces begun here that are kept; one that a caller began is kept if the caller does.

    Raises:
        ImportError: OpenTelemetry is not installed: it is in the extra `telemetry`.
    """
    if endpoint is None:
        return NO_TRACING
    from tunnel.otlp import OtlpTracing  # noqa: PLC0415 - an optional library, loaded only by who wants it

    return OtlpTracing(endpoint, service=service, version=version, ratio=ratio)
