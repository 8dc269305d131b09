"""SPEC.md is normative: its test vectors and its numbers are checked against the code."""

import re
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from tunnel import (
    backoff,
    channel,
    flow,
    frames,
    handshake,
    liveness,
    messages,
    protocol,
    roles,
    session,
    table,
)
from tunnel.errors import ResetCode
from tunnel.frames import CREDIT_OFFSET, FLAG_FIN, FLAG_TRAILERS, PING_BODY, FrameType, decode, encode
from tunnel.identity import NodeIdentity, hello_transcript, sign_hello
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
    Usage,
    Welcome,
    encode_message,
)

SPEC = (Path(__file__).parents[3] / "tunnel" / "SPEC.md").read_text(encoding="utf-8")
KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
NONCE = bytes(range(32))
HELLO = Hello(
    node_id="node_a", instance_id="inst_a", host="hub.example:8421", features=(), agent="porten/0.1.0"
)
TRAILERS = Trailers(
    usage=Usage(prompt_tokens=3, cached_tokens=1, completion_tokens=5), ttft_ms=12.5, outcome="stop"
)
OPEN = Open(
    uid="req_a",
    generation=7,
    method="POST",
    path="/v1/chat/completions",
    headers=(("content-type", "application/json"),),
    deadline=1800000000.0,
    ticket="t",
    window=262144,
    content_length=2,
)
SIGNED = {
    "nonce": NONCE,
    "hub_host": HELLO.host,
    "node_id": HELLO.node_id,
    "instance_id": HELLO.instance_id,
    "hello": encode_message(HELLO),
}


def of(kind: FrameType, message: messages.Message, stream: int = 0) -> bytes:
    return encode(kind, stream, encode_message(message))


def data_with_trailers() -> bytes:
    trailers = encode_message(TRAILERS)
    flags = FLAG_FIN | FLAG_TRAILERS
    return encode(FrameType.DATA, 1, b"data: [DONE]\n\n" + trailers, flags=flags, aux=len(trailers))


VECTORS = {
    "CHALLENGE": of(FrameType.CHALLENGE, Challenge(nonce=NONCE, hub_id="hub_a")),
    "HELLO": handshake.signed_hello(HELLO, NONCE, NodeIdentity("node_a", KEY)),
    "WELCOME": of(
        FrameType.WELCOME,
        Welcome(generation=7, hub_id="hub_a", heartbeat_s=15.0, max_streams=256, credential="c"),
    ),
    "PING": encode(FrameType.PING, payload=PING_BODY.pack((1).to_bytes(8, "big"), 7)),
    "PONG": encode(FrameType.PONG, payload=PING_BODY.pack((1).to_bytes(8, "big"), 7)),
    "STATUS": of(
        FrameType.STATUS,
        Status(agent="a", accepting=True, devices=(), replicas=(), models=(), sequence=1, streams=(1,)),
    ),
    "COMMAND": of(FrameType.COMMAND, Command(job="job_a", action="load", model="m")),
    "EVENT": of(FrameType.EVENT, Event(job="job_a", phase="ready", done=1, total=1)),
    "GOAWAY": of(FrameType.GOAWAY, Goaway(reason="update", reconnect_in=1.5, deadline=30.0, last_stream=1)),
    "OPEN": of(FrameType.OPEN, OPEN, 1),
    "HEAD": of(FrameType.HEAD, Head(status=200, headers=(("content-type", "text/plain"),)), 1),
    "DATA": encode(FrameType.DATA, 1, b"hello"),
    "DATA+FIN": encode(FrameType.DATA, 1, b"", flags=FLAG_FIN),
    "DATA+FIN+TRAILERS": data_with_trailers(),
    "CREDIT": encode(FrameType.CREDIT, 1, CREDIT_OFFSET.pack(393216)),
    "RESET": of(FrameType.RESET, Reset(code=ResetCode.DEADLINE, reason="late"), 1),
    "NOTICE": of(FrameType.NOTICE, Notice(draining=True)),
    "hello transcript": hello_transcript(*SIGNED.values()),
    "hello signature": sign_hello(KEY, **SIGNED),
}

NUMBERS = {
    "message received, at most": frames.MAX_MESSAGE_BYTES,
    "message sent, at most": frames.SEND_MESSAGE_BYTES,
    "control payload, at most": messages.MAX_CONTROL_BYTES,
    "bytes in one DATA frame": frames.MAX_DATA_BYTES,
    "trailers, at most": protocol.MAX_TRAILERS_BYTES,
    "message before authentication": handshake.MAX_HANDSHAKE_BYTES,
    "initial window": flow.INITIAL_WINDOW,
    "window of a request body, at most": flow.REQUEST_WINDOW_LIMIT,
    "least window": flow.LEAST_WINDOW,
    "credit outstanding, at most": flow.MAX_OUTSTANDING_CREDIT,
    "unsent answers, at most": protocol.MAX_CONTROL_BACKLOG,
    "streams in a session": protocol.MAX_STREAMS,
    "resets a second": protocol.RESETS_PER_S,
    "reports a second": roles.REPORTS_PER_S,
    "reports in a burst": roles.REPORT_BURST,
    "resets in a burst": protocol.RESET_BURST,
    "tombstone": table.TOMBSTONE_S,
    "PING interval": liveness.LivenessTimes().ping_s,
    "dead after silence of": liveness.LivenessTimes().silence_s,
    "dead after a write stalled for": liveness.LivenessTimes().stall_s,
    "STATUS interval": session.STATUS_S,
    "reconnect base": backoff.BASE_S,
    "reconnect cap": backoff.CAP_S,
    "stable after": backoff.STABLE_S,
    "refused, first": backoff.REFUSED_BASE_S,
    "refused, at most": backoff.REFUSED_CAP_S,
    "buffer above the kernel": channel.WRITE_LIMIT_BYTES,
}


def written_vectors() -> dict[str, bytes]:
    found = re.findall(r"^([A-Za-z+ ]+):\n((?:    [0-9a-f]+\n)+)", SPEC, re.MULTILINE)
    return {name: bytes.fromhex("".join(lines.split())) for name, lines in found}


def written_numbers() -> dict[str, float]:
    rows = re.findall(r"^\| ([A-Za-z, ]+) \| ([0-9.]+) \|", SPEC, re.MULTILINE)
    return {name: float(value) for name, value in rows}


def test_the_specification_has_exactly_these_vectors() -> None:
    assert list(written_vectors()) == list(VECTORS)


@pytest.mark.parametrize("name", VECTORS)
def test_vector(name: str) -> None:
    assert written_vectors()[name].hex() == VECTORS[name].hex()


@pytest.mark.parametrize("name", [name for name in VECTORS if name[0].isupper()])
def test_frame_vectors_decode(name: str) -> None:
    (frame,) = decode(written_vectors()[name])
    assert FrameType(frame.type).name == name.split("+", maxsplit=1)[0]


def test_limits() -> None:
    assert written_numbers() == {name: float(value) for name, value in NUMBERS.items()}


def test_every_frame_type_and_reset_code_is_listed() -> None:
    for kind in FrameType:
        assert f"| `{kind.value:#04x}` | {kind.name} |" in SPEC
    for name, code in ResetCode.__members__.items():
        if code is not ResetCode.SESSION_LOST:
            assert re.search(rf"^\| {code.value} \| .*\b{name}\b", SPEC, re.MULTILINE), name
