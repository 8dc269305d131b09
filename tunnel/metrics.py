"""The tunnel's numbers for Prometheus, the same on both sides but for the prefix.

Owns their names and labels, which come from closed sets: no node id, no address, no content. Must not know
sessions' insides: it is given counts and a way to ask for the load.
"""

from collections.abc import Callable, Iterable

from prometheus_client import CollectorRegistry, Histogram
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from tunnel.stats import TunnelLoad, TunnelStats

_RTT_BUCKETS_S = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)
_HEAD_BUCKETS_S = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)
_LAG_BUCKETS_S = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0)


class TunnelMetrics(Collector):
    """Registers everything the tunnel tells under ``<prefix>_tunnel_…`` and ``<prefix>_loop_lag_seconds``.

    Args:
        prefix: `porten_hub` or `porten_node`.
        registry: Where it is exposed.
    """

    def __init__(self, prefix: str, registry: CollectorRegistry) -> None:
        self._prefix = f"{prefix}_tunnel"
        self._load: Callable[[], TunnelLoad] | None = None
        rtt = Histogram(
            f"{self._prefix}_rtt_seconds", "From PING to PONG.", buckets=_RTT_BUCKETS_S, registry=registry
        )
        head = Histogram(
            f"{self._prefix}_head_seconds",
            "From a stream's OPEN to the head of its answer.",
            buckets=_HEAD_BUCKETS_S,
            registry=registry,
        )
        lag = Histogram(
            f"{prefix}_loop_lag_seconds",
            "How late the event loop was, looked at each second.",
            buckets=_LAG_BUCKETS_S,
            registry=registry,
        )
        self.on_lag: Callable[[float], None] = lag.observe
        self.stats = TunnelStats(on_rtt=rtt.observe, on_head=head.observe)
        registry.register(self)

    def watch(self, load: Callable[[], TunnelLoad]) -> None:
        """Ask here for the load from now on."""
        self._load = load

    def describe(self) -> Iterable[Metric]:
        """Nothing: the load is asked for when somebody looks, not before."""
        return ()

    def collect(self) -> Iterable[Metric]:
        """Everything as it is now."""
        yield self._counted("handshakes", "Handshakes, by result.", "result", self.stats.handshakes)
        yield self._counted("session_ends", "Sessions that ended, by reason.", "reason", self.stats.ends)
        resets = CounterMetricFamily(
            f"{self._prefix}_resets", "Streams reset, by who reset them and why.", labels=("by", "code")
        )
        for (by, code), count in self.stats.resets.items():
            resets.add_metric((by, code), count)
        yield resets
        yield CounterMetricFamily(
            f"{self._prefix}_credit_stall_seconds",
            "Time that senders waited for a peer's credit.",
            value=self.stats.credit_stall_s,
        )
        if self._load is not None:
            yield from self._gauges(self._load())

    def _gauges(self, load: TunnelLoad) -> Iterable[Metric]:
        yield self._gauged("sessions", "Sessions that stand, by state.", "state", load.sessions)
        yield self._gauged("waiting_streams", "Streams that wait to send, by lane.", "lane", load.waiting)
        for name, text, value in (
            ("streams", "Open streams.", load.streams),
            ("unsent_bytes", "Bytes queued and not yet sent.", load.unsent_bytes),
            ("reserved_bytes", "Bytes that all windows let peers send.", load.reserved_bytes),
        ):
            yield GaugeMetricFamily(f"{self._prefix}_{name}", text, value=value)

    def _counted(self, name: str, text: str, label: str, counts: dict[str, int]) -> Metric:
        family = CounterMetricFamily(f"{self._prefix}_{name}", text, labels=(label,))
        for value, count in counts.items():
            family.add_metric((value,), count)
        return family

    def _gauged(self, name: str, text: str, label: str, counts: dict[str, int]) -> Metric:
        family = GaugeMetricFamily(f"{self._prefix}_{name}", text, labels=(label,))
        for value, count in counts.items():
            family.add_metric((value,), count)
        return family
