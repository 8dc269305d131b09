"""One connection from the node to a Hub: dialled, proved, welcomed; or why not.

Owns the websocket's options and the translation of every way in which a dial fails. Must not know when to
dial again or what the session is for.
"""

import asyncio
import contextlib
import logging
import ssl
from collections.abc import AsyncIterator, Iterator
from typing import Any
from urllib.parse import urlsplit

from websockets.asyncio.client import connect
from websockets.exceptions import InvalidHandshake, InvalidStatus
from websockets.typing import Subprotocol

from tunnel.channel import WRITE_LIMIT_BYTES, WebSocketChannel
from tunnel.errors import DialFailed, HandshakeRefused, TunnelError
from tunnel.frames import MAX_MESSAGE_BYTES
from tunnel.handshake import NODE_HEADER, SUBPROTOCOL, introduce
from tunnel.identity import NodeIdentity
from tunnel.messages import Welcome

DIAL_TIMEOUT_S = 15.0  # TCP, TLS and upgrade; the handshake has as long again
LONGEST_STAY_AWAY_S = 3600.0  # a Hub that errs must not lose its nodes for good

logger = logging.getLogger(__name__)


class Dialler:
    """Dials on behalf of one node.

    Args:
        identity: Who we are.
        instance_id: Different in every run of the node.
        agent: What we call ourselves.
        ssl_context: For wss:// with a private CA.
        proxy: URL of the HTTP proxy to go through; None dials directly, whatever the environment says.
        max_streams: How many streams at once we take in a session.
    """

    def __init__(
        self,
        *,
        identity: NodeIdentity,
        instance_id: str,
        agent: str,
        ssl_context: ssl.SSLContext | None,
        proxy: str | None,
        max_streams: int,
    ) -> None:
        self.node_id = identity.node_id
        self.instance_id = instance_id
        self.max_streams = max_streams
        self._identity = identity
        self._agent = agent
        self._ssl_context = ssl_context
        self._proxy = proxy

    @contextlib.asynccontextmanager
    async def dial(self, url: str) -> AsyncIterator[tuple[WebSocketChannel, Welcome]]:
        """Connect and shake hands; the connection ends with the block.

        Raises:
            HandshakeRefused: the Hub would not have us.
            DialFailed: nobody answered there, or not as a Hub does.
        """
        async with contextlib.AsyncExitStack() as stack:
            with _explained():
                connection = await stack.enter_async_context(self._connect(url))
                channel = WebSocketChannel(connection)
                async with asyncio.timeout(DIAL_TIMEOUT_S):
                    granted = await introduce(
                        channel,
                        identity=self._identity,
                        instance_id=self.instance_id,
                        host=urlsplit(url).netloc.rpartition("@")[2],
                        agent=self._agent,
                        max_streams=self.max_streams,
                    )
            yield channel, granted

    def _connect(self, url: str) -> connect:
        secure = self._ssl_context is not None and url.startswith("wss:")
        tls: dict[str, Any] = {"ssl": self._ssl_context} if secure else {}
        return connect(
            url,
            additional_headers={NODE_HEADER: self._identity.node_id},
            subprotocols=[Subprotocol(SUBPROTOCOL)],
            user_agent_header=self._agent or None,
            compression=None,
            ping_interval=None,
            proxy=self._proxy,
            open_timeout=DIAL_TIMEOUT_S,
            max_size=MAX_MESSAGE_BYTES,
            write_limit=WRITE_LIMIT_BYTES,
            **tls,
        )


@contextlib.contextmanager
def _explained() -> Iterator[None]:
    """Turn every failure of a dial into one of ours."""
    try:
        yield
    except InvalidStatus as answer:
        raise _refusal(answer) from answer
    except HandshakeRefused:
        raise
    except (OSError, TimeoutError, InvalidHandshake, TunnelError) as error:
        detail = f"{type(error).__name__}: {error}"
        logger.info("dial failed", extra={"event": "dial_failed", "error": detail})
        raise DialFailed(detail) from error


def _refusal(answer: InvalidStatus) -> HandshakeRefused:
    response = answer.response
    retry_after: float | None = None
    with contextlib.suppress(ValueError):  # a date is allowed too; then our own delay must do
        retry_after = min(int(response.headers.get("Retry-After", "")), LONGEST_STAY_AWAY_S)
    return HandshakeRefused(response.status_code, retry_after, response.reason_phrase)
