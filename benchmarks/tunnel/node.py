"""A node's relay by itself: the tunnel's client, the forwarder, the tickets, in front of a scripted engine.

Owns what takes the place of the supervisor: a lease of the one engine, and a report that says so. Everything
a chunk passes is the node's own code. It runs as a process of its own, so that its CPU time is the relay's.
"""

import asyncio
import secrets
import signal
import sys
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import uvloop

from benchmarks.stacks.schedules import model_name
from runtime import logs
from runtime.backends.base import Endpoint
from runtime.forward import Forwarder
from runtime.hub_http import AGENT
from runtime.identity import Identity, IdentityStore
from runtime.metrics import NodeMetrics
from runtime.progress import LoadProgress
from runtime.relay import Relay
from runtime.snapshot import ModelView, NodeSnapshot, ReplicaView
from runtime.status import to_status
from runtime.supervisor import Lease
from tunnel.client import TunnelClient
from tunnel.messages import Welcome
from tunnel.protocol import MAX_STREAMS
from tunnel.receipts import FEATURE

DIGEST: Final = "sha256:" + "5c" * 32
_GIB: Final = 1024**3


class EngineLeases:
    """Leases of an engine that is always there and takes as many requests as come."""

    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint

    @asynccontextmanager
    async def lease(
        self,
        model_id: str,
        *,
        budget_s: float,  # noqa: ARG002 - nothing is ever waited for
        share: str = "",  # noqa: ARG002 - nor shared out
        on_progress: Callable[[LoadProgress], None] | None = None,  # noqa: ARG002
    ) -> AsyncIterator[Lease]:
        """Hold the engine for the length of the block."""
        yield Lease(
            replica_id="scripted",
            model_id=model_id,
            model_digest=DIGEST,
            endpoint=self._endpoint,
            report=lambda _tokens, _seconds: None,
        )

    async def examine(self, replica_id: str) -> None:
        """Nothing to mend: an engine that dies ends the benchmark."""


def snapshot(models: Sequence[str]) -> NodeSnapshot:
    """A node on which these models are ready."""
    return NodeSnapshot(
        accepting=True,
        reason=None,
        devices=(),
        replicas=tuple(_replica(model) for model in models),
        models=tuple(_model(model) for model in models),
    )


def _replica(model: str) -> ReplicaView:
    return ReplicaView(
        id=f"replica-{model}",
        model=model,
        state="ready",
        slots=MAX_STREAMS,
        running=0,
        waiting=0,
        tokens_per_second=0.0,
        phase="ready",
        progress=None,
        device="cpu",
        reserved_bytes=_GIB,
        pid=None,
    )


def _model(model: str) -> ModelView:
    return ModelView(
        model=model,
        digest=DIGEST,
        size_bytes=_GIB,
        on_disk=True,
        state="ready",
        fits=True,
        context_length=8192,
        capabilities=("chat",),
        phase="ready",
        done_bytes=_GIB,
        total_bytes=_GIB,
    )


class RelayNode:
    """The node's parts that carry requests, put together as `runtime.node` and `runtime.hub_link` do."""

    def __init__(self, identity: Identity, engine: Endpoint, models: Sequence[str]) -> None:
        picture = snapshot(models)
        status = to_status(picture)
        self._verifier = identity.verifier()
        self._signer = identity.signer()
        self._generations: deque[int] = deque(maxlen=4)
        self._forwarder = Forwarder(EngineLeases(engine))
        relay = Relay(
            forwarder=self._forwarder,
            verifier=lambda: self._verifier,
            signer=lambda: self._signer,
            generations=self._generations,
            metrics=NodeMetrics(lambda: picture),
        )
        self._identity = identity
        self._client = TunnelClient(
            urls=identity.hub.tunnel_urls,
            identity=identity.dialler(),
            instance_id=secrets.token_hex(8),
            handler=relay,
            status=lambda: status,
            on_welcome=self._welcomed,
            on_state=lambda state: _say(f"tunnel {state}"),
            agent=AGENT,
            features=(FEATURE,),
        )

    async def run(self, stop: asyncio.Event) -> None:
        """Serve until `stop` is set."""
        running = asyncio.create_task(self._client.run())
        await stop.wait()
        await self._client.stop()
        await running
        self._forwarder.close()

    def _welcomed(self, welcome: Welcome) -> None:
        self._generations.append(welcome.generation)
        self._identity = self._identity.renewed(welcome.credential)
        self._verifier = self._identity.verifier()
        self._signer = self._identity.signer()


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


async def serve(data_dir: Path, engine: str, models: Sequence[str]) -> None:
    """Serve as the node enrolled in `data_dir` until SIGTERM."""
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    host, _, port = engine.rpartition(":")
    node = RelayNode(IdentityStore(data_dir).load(), Endpoint(host, int(port)), models)
    await node.run(stop)


def main() -> None:
    """The process. Arguments: its data directory, host:port of the engine, the paces offered (ms)."""
    data_dir, engine, *paces = sys.argv[1:]
    logs.configure("INFO")
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve(Path(data_dir), engine, [model_name(int(pace)) for pace in paces]))


if __name__ == "__main__":
    main()
