"""The Hub's listener for tunnels."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from tunnel.messages import Event, Status
from tunnel.session import HubSession


@dataclass(frozen=True, slots=True)
class Grant:
    """What an admitted node gets: its session's generation and its current credential."""

    generation: int
    credential: str


class NodeAuthenticator(Protocol):
    """What the server asks of the Hub."""

    async def public_keys(self, node_id: str) -> tuple[Ed25519PublicKey, ...]:
        """Give the node's active keys; none means unknown or revoked."""
        ...

    async def admit(self, node_id: str, instance_id: str) -> Grant:
        """Give leave, after the signature was verified."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class TunnelLimits:
    """What a server allows."""

    handshakes_per_s: float = 50.0
    handshake_burst: int = 100
    max_streams: int = 256
    heartbeat_s: float = 15.0
    handshake_timeout_s: float = 5.0


class TunnelServer:
    """Accepts nodes."""

    def __init__(
        self,
        *,
        hub_id: str,
        host_names: Sequence[str],
        authenticator: NodeAuthenticator,
        on_session: Callable[[HubSession], None],
        on_status: Callable[[HubSession, Status], None],
        on_closed: Callable[[HubSession], None],
        on_event: Callable[[HubSession, Event], None] | None = None,
        limits: TunnelLimits = TunnelLimits(),
    ) -> None:
        raise NotImplementedError

    @property
    def port(self) -> int:
        """The port listened on."""
        raise NotImplementedError

    async def start(self, host: str, port: int) -> None:
        """Listen."""
        raise NotImplementedError

    async def close(self, *, drain_s: float = 0) -> None:
        """Stop."""
        raise NotImplementedError
