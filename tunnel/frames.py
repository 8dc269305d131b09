"""The frame: a 12-byte big-endian header and a payload; several may share one websocket message.

Owns byte layouts and nothing else. Must not know what a payload means, streams, sockets or clocks.

    0       1       2               4                               8                              12
    +-------+-------+---------------+-------------------------------+-------------------------------+
    | type  | flags |      aux      |            stream             |            length             |
    |  u8   |  u8   |      u16      |              u32              |              u32              |
    +-------+-------+---------------+-------------------------------+-------------------------------+
"""

import struct
from collections.abc import Iterator
from enum import IntEnum
from typing import NamedTuple

from tunnel.errors import ProtocolViolation, ResetCode

__all__ = ["Frame", "FrameType", "ResetCode", "decode", "encode"]

HEADER = struct.Struct(">BBHII")
HEADER_BYTES = HEADER.size
CREDIT_OFFSET = struct.Struct(">Q")
PING_BODY = struct.Struct(">8sQ")  # echoed bytes, generation

MAX_MESSAGE_BYTES = 128 * 1024  # received; the limit of one websocket message
SEND_MESSAGE_BYTES = 64 * 1024  # sent; more would hold up the frames behind it
MAX_DATA_BYTES = 16 * 1024  # raw bytes in one DATA frame; also the scheduling quantum
MAX_STREAM_ID = 2**32 - 1
FIRST_IGNORABLE_TYPE = 0x80  # who does not know such a type ignores it

FLAG_FIN = 0x01  # DATA: the last of its direction
FLAG_TRAILERS = 0x02  # DATA with FIN: the last `aux` payload bytes are msgpack Trailers


class FrameType(IntEnum):
    """What a frame is; the numbers are on the wire."""

    CHALLENGE = 0x01
    HELLO = 0x02
    WELCOME = 0x03
    PING = 0x04
    PONG = 0x05
    STATUS = 0x06
    COMMAND = 0x07
    EVENT = 0x08
    GOAWAY = 0x09
    OPEN = 0x10
    HEAD = 0x11
    DATA = 0x12
    CREDIT = 0x13
    RESET = 0x14
    NOTICE = 0x80


class Frame(NamedTuple):
    """One frame. `type` is a plain int: frames of types yet unknown must be representable."""

    type: int
    flags: int
    aux: int
    stream: int
    payload: bytes


def encode(kind: int, stream: int = 0, payload: bytes = b"", *, flags: int = 0, aux: int = 0) -> bytes:
    """Write one frame."""
    return HEADER.pack(kind, flags, aux, stream, len(payload)) + payload


def decode(message: bytes) -> Iterator[Frame]:
    """Read the frames of one websocket message; a frame never spans two messages.

    Raises:
        ProtocolViolation: the message is too long, or its frames do not fill it exactly.
    """
    size = len(message)
    if size > MAX_MESSAGE_BYTES:
        raise ProtocolViolation(f"message of {size} bytes")
    at = 0
    while at < size:
        if size - at < HEADER_BYTES:
            raise ProtocolViolation("message ends inside a frame header")
        kind, flags, aux, stream, length = HEADER.unpack_from(message, at)
        at += HEADER_BYTES
        if length > size - at:
            raise ProtocolViolation("message ends inside a frame payload")
        yield Frame(kind, flags, aux, stream, message[at : at + length])
        at += length
