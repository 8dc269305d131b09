"""The node's dialler."""

import ssl
from collections.abc import Awaitable, Callable

from tunnel.identity import NodeIdentity
from tunnel.messages import Command, Event, Status, Welcome
from tunnel.session import InboundStream


class TunnelClient:
    """Keeps one session with the Hub, forever."""

    def __init__(
        self,
        *,
        url: str,
        identity: NodeIdentity,
        instance_id: str,
        handler: Callable[[InboundStream], Awaitable[None]],
        status: Callable[[], Status],
        on_welcome: Callable[[Welcome], None],
        on_state: Callable[[str], None],
        on_command: Callable[[Command], None] | None = None,
        agent: str = "",
        ssl_context: ssl.SSLContext | None = None,
        max_streams: int = 256,
    ) -> None:
        raise NotImplementedError

    async def run(self) -> None:
        """Dial, serve, dial again."""
        raise NotImplementedError

    def status_changed(self) -> None:
        """Send a STATUS soon."""
        raise NotImplementedError

    def send_event(self, event: Event) -> None:
        """Report on a job, if there is a session."""
        raise NotImplementedError

    async def stop(self, *, drain_s: float = 0) -> None:
        """Stop."""
        raise NotImplementedError
