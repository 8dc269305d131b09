"""The nodes of the churn: real tunnel clients that check tickets, answer, fail, pause, leave and return."""

import asyncio
import contextlib
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from random import Random

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from tunnel.backoff import Backoff
from tunnel.client import TunnelClient
from tunnel.errors import ResetCode
from tunnel.identity import NodeIdentity, TicketVerifier, read_credential
from tunnel.messages import Head, ModelStatus, ReplicaStatus, Status, Trailers, Usage, Welcome
from tunnel.session import InboundStream

MODEL = "tiny"
SLOTS = 2
_JSON = (("content-type", "application/json"),)
_ANSWER = json.dumps({"object": "chat.completion", "choices": []}).encode()
_FAILURES = (ResetCode.REFUSED, ResetCode.LOAD_FAILED, ResetCode.OVERLOADED)


@dataclass(frozen=True)
class Arrival:
    """A stream that was opened to a node, whatever became of it."""

    request_id: str
    node_id: str
    at: float


@dataclass
class FakeNode:
    """One machine. It lives until it is told that it was revoked, or the run is over."""

    node_id: str
    key: Ed25519PrivateKey
    urls: Sequence[str]
    hub_key: Ed25519PublicKey
    chance: Random
    arrivals: list[Arrival]
    accepting: bool = True
    running: int = 0
    ends: int = 0
    client: TunnelClient | None = None
    verifier: TicketVerifier | None = None
    calm: asyncio.Event = field(default_factory=asyncio.Event)
    over: asyncio.Event = field(default_factory=asyncio.Event)

    async def live(self) -> None:
        """Come, go, pause and come back until all is calm; then stay until it is over."""
        while not self.calm.is_set():
            dialling = self._dial()
            await self._for(self.chance.uniform(1, 15))
            if not self.calm.is_set() and self.chance.random() < 0.4:
                await self._pause()
            await self._leave(dialling)
            await self._for(self.chance.uniform(0, 1.5))
        if not self.over.is_set():
            dialling = self._dial()
            await self.over.wait()
            await self._leave(dialling)

    def end(self) -> None:
        """Leave for good."""
        self.calm.set()
        self.over.set()

    def _dial(self) -> asyncio.Task[None]:
        self.client = TunnelClient(
            urls=self.urls,
            identity=NodeIdentity(self.node_id, self.key),
            instance_id=f"churn-{self.node_id}",
            handler=self._serve,
            status=self._status,
            on_welcome=self._welcomed,
            on_state=lambda _state: None,
            agent="churn/1",
            backoff=Backoff(jitter=lambda: 0.1),
        )
        return asyncio.create_task(self.client.run())

    async def _pause(self) -> None:
        self.accepting = False
        self.client.status_changed()
        await self._for(self.chance.uniform(0.2, 2))
        self.accepting = True
        self.client.status_changed()

    async def _leave(self, dialling: asyncio.Task[None]) -> None:
        """Half the time it says good-bye and finishes what it has; else it is simply gone."""
        drain_s = 1.0 if self.chance.random() < 0.5 else 0.0
        await self.client.stop(drain_s=drain_s)
        await dialling
        self.running, self.ends = 0, self.ends + 1

    async def _for(self, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self.calm.wait()

    def _welcomed(self, welcome: Welcome) -> None:
        self.verifier = TicketVerifier(read_credential(welcome.credential, self.hub_key), self.hub_key)

    def _status(self) -> Status:
        model = ModelStatus(
            model=MODEL,
            digest="sha256:feed",
            size_bytes=1,
            on_disk=True,
            state="ready",
            fits=True,
            context_length=512,
            capabilities=("chat",),
            phase="ready",
            done_bytes=1,
            total_bytes=1,
        )
        replica = ReplicaStatus(
            id="r",
            model=MODEL,
            state="ready",
            slots=SLOTS,
            running=min(self.running, SLOTS),
            waiting=max(0, self.running - SLOTS),
            tokens_per_second=1,
            phase="",
        )
        return Status(
            agent="churn/1", accepting=self.accepting, devices=(), replicas=(replica,), models=(model,)
        )

    async def _serve(self, stream: InboundStream) -> None:
        """Note that it came, check its ticket as a node does, then answer or fail before the first byte."""
        opened = stream.open
        request_id = opened.uid.partition(".")[0]
        self.arrivals.append(Arrival(request_id, self.node_id, asyncio.get_running_loop().time()))
        self.verifier.verify(
            opened.ticket, now=time.time(), request_id=opened.uid, generation=opened.generation
        )
        self.running += 1
        try:
            while await stream.receive() is not None:
                pass
            await self._answer(stream)
        finally:
            self.running = max(0, self.running - 1)

    async def _answer(self, stream: InboundStream) -> None:
        if self.chance.random() < 0.1:
            stream.reset(self.chance.choice(_FAILURES))
            return
        await asyncio.sleep(self.chance.uniform(0, 0.03))
        await stream.send_head(Head(status=200, headers=_JSON))
        usage = Usage(prompt_tokens=1, cached_tokens=0, completion_tokens=1)
        await stream.send(_ANSWER, fin=True, trailers=Trailers(usage=usage))
