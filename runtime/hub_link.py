"""The node's tie to its Hub: the tunnel's client with what it needs to answer, renewed as the Hub renews it.

Owns the identity in force, the verifier made from it and the tunnel's state in words. Must not know how an
identity came about, nor the local API.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Callable

from runtime.commands import Commands
from runtime.config import NodeConfig
from runtime.errors import IdentityInvalid
from runtime.forward import Forwarder
from runtime.hub_http import AGENT, tls_context
from runtime.identity import Identity, IdentityStore
from runtime.metrics import NodeMetrics
from runtime.relay import Relay
from runtime.status import to_status
from runtime.yield_gate import YieldGate
from tunnel.client import TunnelClient
from tunnel.messages import Command, Event, Notice, Status, Welcome
from tunnel.receipts import FEATURE
from tunnel.tracing import NO_TRACING, Tracing

logger = logging.getLogger(__name__)

TAKE_UP_S = 30.0  # within which a new key is in use, where the Hub can be reached
_SESSIONS_AT_ONCE = 4
"""A replacement is dialled before the old session ends; more than a few at once never live."""


class HubLink:
    """Runs the tunnel and answers what comes through it."""

    def __init__(
        self,
        config: NodeConfig,
        identity: Identity,
        *,
        instance_id: str,
        supervisor: YieldGate,
        forwarder: Forwarder,
        metrics: NodeMetrics,
        stopping: Callable[[], bool],
        tracing: Tracing = NO_TRACING,
    ) -> None:
        self.identity = identity
        self.state = "connecting"
        self.leaving = False
        """The owner takes leave of the Hub: its refusal is no news, until it lets the node in again."""
        self.draining = False
        """The Hub says that it gives this node no new requests."""
        self._store = IdentityStore(config.data_dir)
        self._supervisor = supervisor
        self._metrics = metrics
        self._stopping = stopping
        self._verifier = identity.verifier()
        self._signer = identity.signer()
        self._renewed = asyncio.Event()
        self._generations: deque[int] = deque(maxlen=_SESSIONS_AT_ONCE)
        self._relay = Relay(
            forwarder=forwarder,
            verifier=lambda: self._verifier,
            signer=lambda: self._signer,
            generations=self._generations,
            metrics=metrics,
            tracing=tracing,
        )
        self._commands = Commands(supervisor, self._send_event)
        urls = identity.hub.tunnel_urls
        secure = any(url.startswith("wss:") for url in urls)
        self._client = TunnelClient(
            urls=urls,
            identity=identity.dialler(),
            instance_id=instance_id,
            handler=self._relay,
            status=self._status,
            on_welcome=self._welcomed,
            on_state=self._entered,
            on_command=self._command,
            on_notice=self._noticed,
            agent=AGENT,
            features=(FEATURE,),
            stats=metrics.tunnel.stats,
            ssl_context=tls_context(config.hub_ca_file) if secure else None,
            proxy=config.proxy,
        )

        metrics.tunnel.watch(self._client.load)

    async def run(self) -> None:
        """Keep the tunnel up until `stop`."""
        await self._client.run()

    async def stop(self, *, drain_s: float) -> None:
        """Refuse what is new, finish what runs for at most `drain_s` seconds, hang up."""
        self._relay.refusing = True
        self._client.status_changed()
        await self._commands.stop()
        await self._client.stop(drain_s=drain_s)

    async def take_up_key(self) -> bool:
        """Go over to the next key on the disk: a session under it first, then the old one is left.

        Returns:
            Whether a session stands under it; where the Hub is away, one will later.

        Raises:
            NotEnrolled: there is no identity any more.
            IdentityInvalid: its files are damaged.
        """
        self.identity = self._store.load()
        self._client.renew(self.identity.dialler())
        try:
            async with asyncio.timeout(TAKE_UP_S):
                while self.identity.next_key is not None:
                    self._renewed.clear()
                    await self._renewed.wait()
        except TimeoutError:
            return False
        return True

    def status_changed(self) -> None:
        """Tell the Hub soon."""
        self._client.status_changed()

    def _status(self) -> Status:
        return to_status(self._supervisor.snapshot(), stopping=self._stopping())

    def _command(self, command: Command) -> None:
        self._commands.start(command)

    def _send_event(self, event: Event) -> None:
        self._client.send_event(event)

    def _noticed(self, generation: int, notice: Notice) -> None:
        if generation != self._generations[-1] or notice.draining is self.draining:
            return  # an old session's word is no news
        self.draining = notice.draining
        if notice.draining:
            words = (
                "on drain: the Hub gives this node no new requests until somebody resumes it in the portal"
            )
            logger.warning(words, extra={"event": "hub.drained"})
        else:
            logger.info("off drain: the Hub gives this node requests again", extra={"event": "hub.resumed"})

    def _welcomed(self, welcome: Welcome) -> None:
        self._generations.append(welcome.generation)
        self.draining = False  # else it is told at once; an older Hub never tells
        if welcome.credential == self.identity.token:
            return
        before = self.identity
        try:
            self.identity = before.renewed(welcome.credential)
        except IdentityInvalid as error:
            # The one in force stays: what the Hub now asks by another is refused request by request.
            refused = {"event": "credential_refused", "reason": str(error)}
            logger.warning("the Hub's new credential is not accepted", extra=refused)
            return
        self._verifier.renew(self.identity.credential)
        self._signer = self.identity.signer()
        self._save()
        self._renewed.set()
        region = self.identity.credential.region
        logger.info("credential renewed", extra={"event": "credential_renewed", "region": region})
        if self.identity.key is not before.key:
            logger.info("this node's new key is in use", extra={"event": "key_replaced"})

    def _save(self) -> None:
        """Write the credential down, and with it which key is the current one."""
        try:
            self._store.save_credential(self.identity)
        except (OSError, IdentityInvalid) as error:
            # It counts in this process all the same; the Hub hands it out again at the next session.
            fields = {"event": "credential_unsaved", "reason": str(error)}
            logger.warning("the Hub's new credential cannot be written to the disk", extra=fields)

    def _entered(self, state: str) -> None:
        self.state = state
        self._metrics.tunnel_state(state)
        self.leaving = self.leaving and state != "connected"
        is_bad = state == "quarantined" or (state == "refused" and not self.leaving)
        level = logging.WARNING if is_bad else logging.INFO
        fields = {"event": "tunnel_state", "state": state, "hub": self.identity.hub.hub_url}
        logger.log(level, "tunnel %s", state, extra=fields)
        if state == "quarantined":
            logger.warning("another machine uses this node's key. See `porten doctor`")
        elif state == "refused" and self.leaving:
            logger.info("this machine has left the Hub", extra={"event": "left"})
        elif state == "refused":
            logger.warning("the Hub does not know this node: was it revoked? See `porten doctor`")
