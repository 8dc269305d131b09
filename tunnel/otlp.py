"""Spans sent by OpenTelemetry. The one module that imports it, itself imported only where traces are wanted.

Owns the SDK's set-up. The global tracer and the context of the running task are left alone: a span's parent
is always given.
"""

from __future__ import annotations

from types import TracebackType
from typing import Self

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from tunnel.tracing import TRACEPARENT, Span, Tracing, Value

SEND_S = 5
"""Seconds that sending a batch may take, also at the end of the program."""

_PROPAGATOR = TraceContextTextMapPropagator()


class OtlpSpan(Span):
    """A step that is traced."""

    __slots__ = ("_span", "_tracer")

    def __init__(self, tracer: trace.Tracer, span: trace.Span) -> None:
        self._tracer = tracer
        self._span = span

    @property
    def traceparent(self) -> str | None:  # type: ignore[override] # what is a constant above is known here
        """What the next program is told."""
        carrier: dict[str, str] = {}
        _PROPAGATOR.inject(carrier, trace.set_span_in_context(self._span, Context()))
        return carrier.get(TRACEPARENT)

    def __enter__(self) -> Self:
        """It has begun already, when it was made."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """End."""
        if kind is not None:
            self._span.set_attribute("error.type", kind.__name__)
            self._span.set_status(trace.StatusCode.ERROR)
        self._span.end()

    def child(self, name: str, **attributes: Value) -> Span:
        """A step within this one."""
        within = trace.set_span_in_context(self._span, Context())
        return OtlpSpan(self._tracer, self._tracer.start_span(name, within, attributes=_named(attributes)))

    def set(self, **attributes: Value) -> None:
        """Note what is known of the step by now."""
        self._span.set_attributes(_named(attributes))


class OtlpTracing(Tracing):
    """Spans in batches to one endpoint, from a thread of the SDK's own; what it cannot take is dropped."""

    def __init__(self, endpoint: str, *, service: str, version: str, ratio: float) -> None:
        self._provider = TracerProvider(
            sampler=ParentBased(TraceIdRatioBased(ratio)),
            resource=Resource.create({"service.name": service, "service.version": version}),
            shutdown_on_exit=False,
        )
        exporter = OTLPSpanExporter(endpoint=endpoint, timeout=SEND_S)
        self._provider.add_span_processor(BatchSpanProcessor(exporter))
        self._tracer = self._provider.get_tracer("porten", version)

    @property
    def enabled(self) -> bool:
        """Whether anything is traced."""
        return True

    def span(self, name: str, parent: str | None = None, **attributes: Value) -> Span:
        """A first step in this program."""
        within = Context()
        if parent is not None:
            within = _PROPAGATOR.extract({TRACEPARENT: parent}, within)
        span = self._tracer.start_span(name, within, trace.SpanKind.SERVER, _named(attributes))
        return OtlpSpan(self._tracer, span)

    def close(self) -> None:
        """Send what is left; waits for it."""
        self._provider.shutdown()


def _named(attributes: dict[str, Value]) -> dict[str, Value]:
    return {f"porten.{name}": value for name, value in attributes.items()}
