"""The node's Prometheus metrics.

Owns names, labels and buckets. Labels are model ids, outcomes and states only: never anything of a request's
content, never a key. Each node has its own registry, so that two in one process do not meet.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from runtime.snapshot import NodeSnapshot
from runtime.usage import TokenUsage
from tunnel.metrics import TunnelMetrics

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
TUNNEL_STATES = ("connecting", "connected", "refused", "quarantined", "waiting", "stopped")
_TTFT_BUCKETS_S = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
_DURATION_BUCKETS_S = (0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0)


class NodeMetrics:
    """Counters of the requests, gauges of the node's state."""

    def __init__(self, snapshot: Callable[[], NodeSnapshot]) -> None:
        self._snapshot = snapshot
        self._offered: frozenset[str] = frozenset()
        self.registry = CollectorRegistry()
        self._requests = Counter(
            "porten_node_requests",
            "Requests ended, by where they came from, model and outcome.",
            ("source", "model", "outcome"),
            registry=self.registry,
        )
        self._active = Gauge(
            "porten_node_active_requests", "Requests in work.", ("source",), registry=self.registry
        )
        self._tokens = Counter(
            "porten_node_tokens",
            "Tokens as the engines counted them.",
            ("model", "kind"),
            registry=self.registry,
        )
        self._ttft = Histogram(
            "porten_node_time_to_first_byte_seconds",
            "From the engine's lease to the first byte of its answer.",
            ("model",),
            buckets=_TTFT_BUCKETS_S,
            registry=self.registry,
        )
        self._duration = Histogram(
            "porten_node_request_duration_seconds",
            "From a request's arrival to its end.",
            ("model",),
            buckets=_DURATION_BUCKETS_S,
            registry=self.registry,
        )
        self._tunnel = Gauge(
            "porten_node_tunnel_state",
            "1 for the state the tunnel is in.",
            ("state",),
            registry=self.registry,
        )
        self.tunnel = TunnelMetrics("porten_node", self.registry)
        self.registry.register(_SnapshotCollector(snapshot))

    @contextmanager
    def active(self, source: str) -> Iterator[None]:
        """Count a request as in work for the length of the block."""
        gauge = self._active.labels(source)
        gauge.inc()
        try:
            yield
        finally:
            gauge.dec()

    def request_ended(
        self,
        source: str,
        model: str,
        outcome: str,
        *,
        duration_s: float,
        usage: TokenUsage | None = None,
        ttft_ms: float | None = None,
    ) -> None:
        """Count one request."""
        model = self._label(model)
        self._requests.labels(source, model, outcome).inc()
        self._duration.labels(model).observe(duration_s)
        if ttft_ms is not None:
            self._ttft.labels(model).observe(ttft_ms / 1000)
        if usage is not None:
            self._tokens.labels(model, "prompt").inc(usage.prompt_tokens)
            self._tokens.labels(model, "cached").inc(usage.cached_tokens)
            self._tokens.labels(model, "completion").inc(usage.completion_tokens)

    def _label(self, model: str) -> str:
        """The model, if this node offers it or has offered it: anybody can make names up."""
        if model not in self._offered:
            self._offered |= {view.model for view in self._snapshot().models}
        return model if model in self._offered else ""

    def tunnel_state(self, state: str) -> None:
        """Say which state the tunnel is in."""
        for name in TUNNEL_STATES:
            self._tunnel.labels(name).set(name == state)

    def exposition(self) -> bytes:
        """Everything, as Prometheus reads it."""
        return generate_latest(self.registry)


class _SnapshotCollector(Collector):
    """Gauges read from the supervisor when somebody asks, so that nothing has to be kept in step."""

    def __init__(self, snapshot: Callable[[], NodeSnapshot]) -> None:
        self._snapshot = snapshot

    def describe(self) -> Iterable[Metric]:
        """Nothing: to tell the names, the supervisor would have to run already."""
        return ()

    def collect(self) -> Iterable[Metric]:
        """The gauges as they are now."""
        snapshot = self._snapshot()
        running = GaugeMetricFamily(
            "porten_node_replica_running", "Requests running.", labels=("model", "replica")
        )
        waiting = GaugeMetricFamily(
            "porten_node_replica_waiting", "Requests waiting.", labels=("model", "replica")
        )
        for replica in snapshot.replicas:
            running.add_metric((replica.model, replica.id), replica.running)
            waiting.add_metric((replica.model, replica.id), replica.waiting)
        memory = GaugeMetricFamily(
            "porten_node_memory_bytes", "Memory of a device.", labels=("device", "kind")
        )
        for device in snapshot.devices:
            memory.add_metric((device.id, "budget"), device.memory_budget)
            memory.add_metric((device.id, "reserved"), device.memory_reserved)
            memory.add_metric((device.id, "held"), device.memory_held)
        return (running, waiting, memory)
