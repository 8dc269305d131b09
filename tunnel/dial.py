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

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus, WebSocketException
from websockets.typing import Subprotocol

from tunnel.channel import CLOSE_TIMEOUT_S, WRITE_LIMIT_BYTES, BoundedClientConnection, WebSocketChannel
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
        features: What we do beyond the first version of the protocol.
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
        features: tuple[str, ...] = (),
    ) -> None:
        self.node_id = identity.node_id
        self.instance_id = instance_id
        self.max_streams = max_streams
        self._agent = agent
        self._ssl_context = ssl_context
        self._proxy = proxy
        self._features = features
        self.renew(identity)

    def renew(self, identity: NodeIdentity) -> None:
        """Dial as this from now on: with its next key first, where it has one."""
        keys = (identity.next_key, identity.private_key)
        self._keys = tuple(key for key in keys if key is not None)

    @contextlib.asynccontextmanager
    async def dial(self, url: str, *, replaces: int = 0) -> AsyncIterator[tuple[WebSocketChannel, Welcome]]:
        """Connect and shake hands; the connection ends with the block.

        Args:
            url: Where to.
            replaces: The generation of the session that is left for this one; 0 for none.

        Raises:
            HandshakeRefused: the Hub would not have us.
            DialFailed: nobody answered there, or not as a Hub does.
        """
        async with contextlib.AsyncExitStack() as stack:
            with _explained():
                channel, granted = await self._welcomed(stack, url, replaces)
            yield channel, granted

    async def _welcomed(
        self, stack: contextlib.AsyncExitStack, url: str, replaces: int
    ) -> tuple[WebSocketChannel, Welcome]:
        """Shake hands with each of our keys in turn, until one is taken; that one is first the next time."""
        keys = self._keys
        for key in keys:
            try:
                welcomed = await self._shake_hands(stack, url, key, replaces)
            except HandshakeRefused as refused:
                if refused.status != 401 or key is keys[-1]:
                    raise
                logger.info("one key refused, trying the other", extra={"event": "key_refused"})
                continue
            if self._keys is keys:
                self._keys = (key, *(other for other in keys if other is not key))
            return welcomed
        raise AssertionError("a node has a key")

    async def _shake_hands(
        self, stack: contextlib.AsyncExitStack, url: str, key: Ed25519PrivateKey, replaces: int
    ) -> tuple[WebSocketChannel, Welcome]:
        async with contextlib.AsyncExitStack() as attempt:
            channel = WebSocketChannel(await attempt.enter_async_context(self._connect(url)))
            async with asyncio.timeout(DIAL_TIMEOUT_S):
                granted = await introduce(
                    channel,
                    identity=NodeIdentity(self.node_id, key),
                    instance_id=self.instance_id,
                    host=urlsplit(url).netloc.rpartition("@")[2],
                    agent=self._agent,
                    max_streams=self.max_streams,
                    replaces=replaces,
                    features=self._features,
                )
            await stack.enter_async_context(attempt.pop_all())
        return channel, granted

    def _connect(self, url: str) -> connect:
        secure = self._ssl_context is not None and url.startswith("wss:")
        tls: dict[str, Any] = {"ssl": self._ssl_context} if secure else {}
        return connect(
            url,
            additional_headers={NODE_HEADER: self.node_id},
            subprotocols=[Subprotocol(SUBPROTOCOL)],
            user_agent_header=self._agent or None,
            compression=None,
            ping_interval=None,
            proxy=self._proxy,
            open_timeout=DIAL_TIMEOUT_S,
            max_size=MAX_MESSAGE_BYTES,
            write_limit=WRITE_LIMIT_BYTES,
            close_timeout=CLOSE_TIMEOUT_S,
            create_connection=BoundedClientConnection,
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
    except (OSError, TimeoutError, UnicodeError, WebSocketException, TunnelError) as error:
        detail = f"{type(error).__name__}: {error}"
        logger.info("dial failed", extra={"event": "dial_failed", "error": detail})
        raise DialFailed(detail) from error


def _refusal(answer: InvalidStatus) -> HandshakeRefused:
    response = answer.response
    retry_after: float | None = None
    with contextlib.suppress(ValueError):  # a date is allowed too; then our own delay must do
        retry_after = min(int(response.headers.get("Retry-After", "")), LONGEST_STAY_AWAY_S)
    return HandshakeRefused(response.status_code, retry_after, response.reason_phrase)
