"""The control payloads of the tunnel: frozen msgpack maps.

Owns their fields and their encoding. Must not know frames' headers, sessions or policies.
Unknown fields are ignored, so a newer peer may add some; a field once sent keeps its meaning.
"""

from typing import Annotated, Any, Literal, TypeVar

import msgspec

from tunnel.errors import ProtocolViolation

MAX_CONTROL_BYTES = 32 * 1024  # bytes; a control payload beyond it ends the session


MAX_TOKENS = 1_000_000_000  # of one request: more is a lie, and sums of it must stay within 64 bits

Tokens = Annotated[int, msgspec.Meta(ge=0, le=MAX_TOKENS)]
Count = Annotated[int, msgspec.Meta(ge=0, le=1_000_000)]
Bytes = Annotated[int, msgspec.Meta(ge=0, le=2**60)]
Name = Annotated[str, msgspec.Meta(max_length=200)]
Text = Annotated[str, msgspec.Meta(max_length=1000)]


class Message(msgspec.Struct, frozen=True):
    """Base of all control payloads: a msgpack map, field names as keys."""


class Challenge(Message, kw_only=True, frozen=True):
    """Hub to node, first of all: what the node has to sign."""

    nonce: bytes
    hub_id: str


class Hello(Message, kw_only=True, frozen=True):
    """Node to Hub: who dials and what it speaks. The signature follows it in the frame."""

    node_id: str
    instance_id: str
    host: str  # host[:port] as dialled; a HELLO signed for another Hub is refused
    versions: tuple[int, ...] = (1,)
    features: tuple[str, ...] = ()
    agent: str = ""
    max_streams: int = 256
    replaces: int = 0  # the generation of the session that this one is to follow without a gap; 0 for none


class Welcome(Message, kw_only=True, frozen=True):
    """Hub to node: the session stands."""

    generation: int
    hub_id: str
    heartbeat_s: float
    max_streams: int
    credential: str  # the node's current NodeCredential; the node stores it if it changed
    features: tuple[str, ...] = ()


class Open(Message, kw_only=True, frozen=True):
    """Hub to node: one request begins. `deadline` is unix seconds, `window` bytes of credit."""

    uid: str
    generation: int
    method: str
    path: str
    headers: tuple[tuple[str, str], ...]
    deadline: float
    ticket: str
    window: int = 0
    content_length: int | None = None


class Head(Message, kw_only=True, frozen=True):
    """Node to Hub: the response's status and headers, before its first byte."""

    status: int
    headers: tuple[tuple[str, str], ...]


class Usage(Message, kw_only=True, frozen=True):
    """Tokens as the engine counted them."""

    prompt_tokens: Tokens
    cached_tokens: Tokens
    completion_tokens: Tokens


class Trailers(Message, kw_only=True, frozen=True):
    """Rides in the last DATA frame: what the Hub must know before it passes on the last bytes."""

    usage: Usage | None = None
    ttft_ms: float | None = None
    outcome: Name = ""


class DeviceStatus(Message, kw_only=True, frozen=True):
    """One device of the node; all memory in bytes."""

    id: Name
    kind: Literal["cpu", "cuda", "metal"]
    name: Name
    memory_total: Bytes
    memory_used_by_others: Bytes
    memory_budget: Bytes
    memory_reserved: Bytes


class ReplicaStatus(Message, kw_only=True, frozen=True):
    """One engine process; `progress` is 0..1 while it loads."""

    id: Name
    model: Name
    state: Name
    slots: Count
    running: Count
    waiting: Count
    tokens_per_second: float
    phase: Name
    progress: float | None = None


class ModelStatus(Message, kw_only=True, frozen=True):
    """One model the node offers; sizes in bytes."""

    model: Name
    digest: Name | None
    size_bytes: Bytes
    on_disk: bool
    state: Literal["cold", "warming", "ready"]
    fits: bool
    context_length: Bytes
    capabilities: Annotated[tuple[Name, ...], msgspec.Meta(max_length=32)]
    phase: Name
    done_bytes: Bytes
    total_bytes: Bytes


class Status(Message, kw_only=True, frozen=True):
    """Node to Hub, every 10 s and on change. The session fills in `sequence` and `streams`."""

    agent: Name
    accepting: bool
    devices: Annotated[tuple[DeviceStatus, ...], msgspec.Meta(max_length=64)]
    replicas: Annotated[tuple[ReplicaStatus, ...], msgspec.Meta(max_length=256)]
    models: Annotated[tuple[ModelStatus, ...], msgspec.Meta(max_length=512)]
    reason: Text | None = None
    sequence: int = 0
    streams: Annotated[tuple[int, ...], msgspec.Meta(max_length=1024)] = ()


class Goaway(Message, kw_only=True, frozen=True):
    """Either side: no new streams here. Times are seconds from now."""

    reason: str
    reconnect_in: float
    deadline: float
    last_stream: int


class Command(Message, kw_only=True, frozen=True):
    """Hub to node: a job of its own, not part of a request."""

    job: str
    action: Literal["load", "unload", "pull"]
    model: str


class Notice(Message, kw_only=True, frozen=True):
    """Hub to node: what the Hub has decided about it, for its owner to see. Nothing else follows from it."""

    draining: bool  # it gets no new requests until somebody resumes it


class Event(Message, kw_only=True, frozen=True):
    """Node to Hub: how a Command goes on."""

    job: Name
    phase: Name
    done: Bytes
    total: Bytes
    error: Text | None = None


class Reset(Message, kw_only=True, frozen=True):
    """Either side: this stream is over. `code` is a ResetCode."""

    code: int
    reason: str = ""


M = TypeVar("M", bound=Message)

_encoder = msgspec.msgpack.Encoder()
_decoders: dict[type[Message], msgspec.msgpack.Decoder[Any]] = {}


def encode_message(message: Message) -> bytes:
    """Encode a control payload.

    Raises:
        ProtocolViolation: (local) it is longer than MAX_CONTROL_BYTES.
    """
    payload = _encoder.encode(message)
    if len(payload) > MAX_CONTROL_BYTES:
        kind = type(message).__name__
        raise ProtocolViolation(f"{kind} of {len(payload)} bytes is over the limit", local=True)
    return payload


def decode_message(kind: type[M], payload: bytes | memoryview) -> M:
    """Decode a control payload of the given kind.

    Raises:
        ProtocolViolation: it is too long, not msgpack, or not of this shape.
    """
    if len(payload) > MAX_CONTROL_BYTES:
        raise ProtocolViolation(f"{kind.__name__} payload is over the limit")
    decoder = _decoders.get(kind)
    if decoder is None:
        decoder = _decoders[kind] = msgspec.msgpack.Decoder(kind)
    try:
        message: M = decoder.decode(payload)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ProtocolViolation(f"not a {kind.__name__}: {error}") from error
    return message
