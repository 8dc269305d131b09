"""What `make fuzz` throws bytes at: each target takes any bytes and lets nothing out but a fault of the code.

A peer's bytes may end a session or a handshake (ProtocolViolation, HandshakeRefused) and do nothing worse:
no other exception, no memory beyond the limits of SPEC.md, nothing sent that a peer could not read. The
inputs in `corpus` are tried by every test run too.
"""

import struct
from collections.abc import Callable, Coroutine
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from tunnel.errors import ChannelClosed, HandshakeRefused, ProtocolViolation, ResetCode
from tunnel.events import DataReceived, TunnelEvent
from tunnel.flow import ByteBudget
from tunnel.frames import MAX_MESSAGE_BYTES, SEND_MESSAGE_BYTES, decode, encode
from tunnel.handshake import challenge, introduce
from tunnel.identity import NodeIdentity
from tunnel.messages import (
    Challenge,
    Command,
    Event,
    Goaway,
    Head,
    Hello,
    Notice,
    Open,
    Reset,
    Status,
    Trailers,
    Welcome,
    decode_message,
    encode_message,
)
from tunnel.protocol import MAX_CONTROL_BACKLOG, MAX_PENDING_BYTES, TunnelProtocol
from tunnel.roles import HubProtocol, NodeProtocol
from tunnel.state import Half, StreamState

KINDS = (Challenge, Hello, Welcome, Open, Head, Trailers, Status, Goaway, Command, Event, Reset, Notice)
RECORD = struct.Struct(">BBBHBH")  # what to do; a frame's type, flags, aux, stream, and payload's length
MAX_STREAMS = 4
IDENTITY = NodeIdentity("node_a", Ed25519PrivateKey.from_private_bytes(bytes(range(32))))
OPEN = Open(uid="r", generation=7, method="POST", path="/", headers=(), deadline=1.0, ticket="t")


def frames(data: bytes) -> None:
    """`frames.decode`: what it reads is what `encode` would have written."""
    try:
        read = list(decode(data))
    except ProtocolViolation:
        return
    again = (encode(each.type, each.stream, each.payload, flags=each.flags, aux=each.aux) for each in read)
    assert b"".join(again) == data


def messages(data: bytes) -> None:
    """Every decoder of a control payload: what it reads survives being written and read again."""
    kind = KINDS[data[0] % len(KINDS)] if data else Reset
    try:
        written = encode_message(decode_message(kind, data[1:]))
    except ProtocolViolation:
        return
    assert encode_message(decode_message(kind, written)) == written


def handshake_of_the_hub(data: bytes) -> None:
    """A HELLO from anybody: without the key there is no way in."""
    try:
        _finish(_be_challenged(_Scripted([data])))
    except (ProtocolViolation, HandshakeRefused, ChannelClosed):
        return
    raise AssertionError("let in without the key")


def handshake_of_the_node(data: bytes) -> None:
    """A CHALLENGE and a WELCOME from anybody; the first byte says where one ends."""
    split = int.from_bytes(data[:2], "big")
    channel = _Scripted([data[2 : 2 + split], data[2 + split :]])
    try:
        _finish(introduce(channel, identity=IDENTITY, instance_id="i", host="hub.example"))
    except (ProtocolViolation, HandshakeRefused, ChannelClosed):
        return


def hub(data: bytes) -> None:
    """`HubProtocol.receive` between the Hub's own acts."""
    _converse(HubProtocol, data)


def node(data: bytes) -> None:
    """`NodeProtocol.receive` between the node's own acts."""
    _converse(NodeProtocol, data)


TARGETS: dict[str, Callable[[bytes], None]] = {
    target.__name__: target
    for target in (frames, messages, handshake_of_the_hub, handshake_of_the_node, hub, node)
}


# -- a session -------------------------------------------------------------------------------------


class _Peer:
    """One end of a session, all that its users hold, and what it does of its own accord."""

    def __init__(self, kind: type[TunnelProtocol]) -> None:
        self.now = 100.0
        self.budget = ByteBudget(1024 * 1024)
        options: dict[str, Any] = {"generation": 7, "now": self.now, "max_streams": MAX_STREAMS}
        self.protocol = kind(budget=self.budget, jitter=lambda: 0.5, **options)
        self.streams: dict[int, StreamState] = {}
        self.unread: dict[int, int] = {}
        self._acts = (self._open, self._send, self._read, self._reset, self._discard, self._wait, self._flush)

    def hear(self, message: bytes) -> None:
        events = self.protocol.receive(message, self.now)
        assert sum(len(event.data) for event in events if isinstance(event, DataReceived)) <= len(message)
        for event in events:
            self.hold(event)

    def act(self, what: int, number: int) -> None:
        """Do something of its own, on one of its streams."""
        live = list(self.protocol.streams.values())
        self._acts[what % len(self._acts)](live[number % len(live)] if live else None, number)

    def check(self) -> None:
        """Memory is within what SPEC.md allows."""
        assert self.protocol._outbox.control_bytes <= MAX_CONTROL_BACKLOG + SEND_MESSAGE_BYTES
        assert len(self.protocol.streams) <= MAX_STREAMS
        for stream in self.streams.values():
            window = stream.window
            assert 0 <= window.received - window.consumed <= window.size
            assert stream.pending_bytes <= MAX_PENDING_BYTES
        assert self.budget.reserved == sum(stream.window.size for stream in self.streams.values())

    def end(self) -> None:
        self.protocol.abandon()
        for stream in self.streams.values():
            self.protocol.consumed(stream, self.unread[stream.id])
        assert self.budget.reserved == 0

    def hold(self, event: TunnelEvent) -> None:
        stream: StreamState | None = getattr(event, "stream", None)
        if stream is not None and stream.id not in self.streams:
            self.streams[stream.id] = stream
            self.unread[stream.id] = 0
        if isinstance(event, DataReceived):
            self.unread[event.stream.id] += len(event.data)

    def _open(self, _: StreamState | None, number: int) -> None:
        if isinstance(self.protocol, HubProtocol) and len(self.protocol.streams) < MAX_STREAMS:
            stream = self.protocol.open_stream(OPEN)
            self.streams[stream.id] = stream
            self.unread[stream.id] = 0

    def _send(self, stream: StreamState | None, number: int) -> None:
        if stream is None or stream.fin_pending or stream.sending is Half.DONE:
            return
        if stream.sending is Half.HEAD and isinstance(self.protocol, NodeProtocol):
            self.protocol.send_head(stream, Head(status=200, headers=()))
        room = self.protocol.room(stream)
        if room >= 0:
            self.protocol.send_data(stream, bytes(min(room, number)), fin=number % 5 == 0)

    def _read(self, stream: StreamState | None, number: int) -> None:
        if stream is not None:
            self.protocol.consumed(stream, self.unread[stream.id])
            self.unread[stream.id] = 0

    def _reset(self, stream: StreamState | None, number: int) -> None:
        if stream is not None:
            self.protocol.reset(stream, ResetCode.CANCELLED)

    def _discard(self, stream: StreamState | None, number: int) -> None:
        if stream is not None:
            self.protocol.discard(stream, self.unread[stream.id])
            self.unread[stream.id] = 0

    def _wait(self, _: StreamState | None, number: int) -> None:
        self.now += number / 1000
        self.protocol.tick(self.now)

    def _flush(self, _: StreamState | None, number: int) -> None:
        message = self.protocol.data_to_send(self.now)
        assert len(message) <= SEND_MESSAGE_BYTES
        list(decode(message))
        self.protocol.take_unblocked()


def _converse(kind: type[TunnelProtocol], data: bytes) -> None:
    """Read the input as records: frames that gather into a message, bytes as they are, or an own act."""
    peer = _Peer(kind)
    at, message = 0, b""
    try:
        while at + RECORD.size <= len(data):
            what, kind_of_frame, flags, aux, stream, length = RECORD.unpack_from(data, at)
            at += RECORD.size
            if what < 0x80:
                payload = data[at : at + length]
                at += length
                framed = encode(kind_of_frame, stream, payload, flags=flags, aux=aux)
                message += payload if what & 1 else framed
            if what & 2 or len(message) > MAX_MESSAGE_BYTES:
                peer.hear(message)
                message = b""
            if what >= 0x80:
                peer.act(kind_of_frame, length)
            peer.check()
    except ProtocolViolation as violation:
        if violation.local:
            raise
        for event in violation.before:
            peer.hold(event)
    peer.end()


# -- a handshake -----------------------------------------------------------------------------------


class _Scripted:
    """A channel whose other end says what was written down and then hangs up."""

    def __init__(self, said: list[bytes]) -> None:
        self._said = said

    async def send(self, message: bytes) -> None:
        list(decode(message))

    async def receive(self) -> bytes:
        if not self._said:
            raise ChannelClosed
        return self._said.pop(0)

    async def close(self, code: int = 1000, reason: str = "") -> None:
        raise AssertionError("the handshake closes nothing")


async def _be_challenged(channel: _Scripted) -> Hello:
    async def public_keys(node_id: str) -> tuple[Any, ...]:
        return (IDENTITY.private_key.public_key(),)

    names = ("hub.example",)
    return await challenge(
        channel, hub_id="hub_a", node_id="node_a", host_names=names, public_keys=public_keys
    )


def _finish(work: Coroutine[Any, Any, object]) -> None:
    """Run what never waits to its end."""
    try:
        work.send(None)
    except StopIteration:
        return
    raise AssertionError("waits")
