"""The Hub's metrics for Prometheus.

Owns their names and labels. Must not know requests or nodes: others tell it what happened. Labels come from
closed sets (endpoints, statuses, codes, the catalog's names), so that no caller can grow them and none
carries content, keys or node ids.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from functools import cache

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from hub.storage.records import UsageRecord
from tunnel.metrics import TunnelMetrics

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
OTHER = "other"

_TTFT_BUCKETS_S = (0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0)
_MS = 1000.0
_KINDS = ("prompt", "cached", "completion")


@dataclass(frozen=True, slots=True)
class _Counts:
    """What is counted of one model."""

    ttft: Histogram
    prompt: Counter
    cached: Counter
    completion: Counter


class Metrics:
    """Counters of one Hub process, in a registry of their own."""

    def __init__(
        self,
        *,
        models: Collection[str],
        sessions: Callable[[], int],
        waiting: Callable[[], int] = lambda: 0,
    ) -> None:
        """Begin at zero.

        Args:
            models: the catalog's names; any other model counts as ``other``.
            sessions: the number of connected nodes now.
            waiting: the number of usage records that are not stored yet.

        Attributes:
            tunnel: the tunnels' own numbers.
        """
        self._models = frozenset(models)
        self._registry = CollectorRegistry()
        self._requests = Counter(
            "porten_hub_requests",
            "Requests answered, by endpoint, HTTP status and error code (ok where there was none).",
            ("endpoint", "status", "code"),
            registry=self._registry,
        )
        self._ttft = Histogram(
            "porten_hub_ttft_seconds",
            "Seconds from a request's arrival to the first byte of its answer from a node.",
            ("model",),
            buckets=_TTFT_BUCKETS_S,
            registry=self._registry,
        )
        self._tokens = Counter(
            "porten_hub_tokens", "Tokens by model and kind.", ("model", "kind"), registry=self._registry
        )
        self._outcomes = Counter(
            "porten_hub_outcomes",
            "Requests that reached a node, by model and outcome.",
            ("model", "outcome"),
            registry=self._registry,
        )
        # A child is looked up once: each look costs more than the count.
        self._answers = cache(
            lambda endpoint, status, code: self._requests.labels(endpoint, str(status), code)
        )
        self._ends = cache(self._outcomes.labels)
        self._counts = cache(self._counts_of)
        self.active_streams = Gauge(
            "porten_hub_active_streams", "Requests on their way to or from a node.", registry=self._registry
        )
        self._database = Gauge(
            "porten_hub_database_up", "1 while the database answers, else 0.", registry=self._registry
        )
        self._database.set(1)
        Gauge(
            "porten_hub_usage_waiting",
            "Usage records of this process that the database does not have yet.",
            registry=self._registry,
        ).set_function(waiting)
        self.tunnel = TunnelMetrics("porten_hub", self._registry)
        Gauge("porten_hub_sessions", "Connected nodes.", registry=self._registry).set_function(sessions)

    def _counts_of(self, model: str) -> _Counts:
        return _Counts(self._ttft.labels(model), *(self._tokens.labels(model, kind) for kind in _KINDS))

    def database_answers(self, answers: bool) -> None:  # noqa: FBT001 - a callback's one argument
        """Note whether the database answered the last time that it was looked at."""
        self._database.set(1 if answers else 0)

    def answered(self, endpoint: str, status: int, code: str) -> None:
        """Count an answered request; ``code`` is one of the error table, or ``ok``."""
        self._answers(endpoint, status, code).inc()

    def used(self, record: UsageRecord) -> None:
        """Count what a request used."""
        model = record.model if record.model in self._models else OTHER
        counts = self._counts(model)
        self._ends(model, record.outcome).inc()
        if record.ttft_ms is not None:
            counts.ttft.observe(record.ttft_ms / _MS)
        counts.prompt.inc(record.prompt_tokens)
        counts.cached.inc(record.cached_tokens)
        counts.completion.inc(record.completion_tokens)

    def text(self) -> bytes:
        """The exposition, of type `CONTENT_TYPE`."""
        return generate_latest(self._registry)
