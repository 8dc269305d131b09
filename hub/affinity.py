"""Where a conversation's cache lies: the same beginning leads to the same node.

Owns the key of a conversation and the ring on which keys and nodes stand. Must not know policies, load or
sessions: :mod:`hub.router` decides whether the node that is found here may be used, and bounds it by load.

The ring is consistent hashing with bounded loads (Mirrokni, Thorup, Zadimoghaddam, *Consistent Hashing with
Bounded Loads*, SODA 2018): a key belongs to the next node on the ring, and goes on to the one after it
where that node has more than its bound (here against the least load, which is known, not the average).
A node that comes or goes moves only the keys of its own arc.
Engines keep the keys and values of a prompt's beginning for reuse (Kwon et al., *Efficient Memory
Management for Large Language Model Serving with PagedAttention*, SOSP 2023), which is what makes the same
node worth coming back to.

A key is made with a secret and the organisation's id: equal prompts of two organisations lead to unrelated
places, so that nobody can aim at the node that has read another's prompt and time what is cached there.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from hashlib import blake2b
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # the router imports this module
    from hub.router import Candidate

RING_BITS = 64
RING_MASK = (1 << RING_BITS) - 1
"""Places on the ring, which closes."""

WALK = 2
"""Nodes after a key's place that may have its cache: its own, and the one to which it was spilled."""

PREFIX_BYTES = 2048
"""Bytes of a conversation's beginning that count, up to the first user's turn."""
TURN_BYTES = 256
"""Bytes of the first user's turn that count; a turn that is shorter counts as a whole."""
_LOOK_BYTES = 65_536  # of a body of megabytes no more is looked through

# Quotes within a string are escaped in JSON: what stands between bare ones is no part of anything said.
_MESSAGES = b'"messages"'
_OTHER_BEGINNINGS = (b'"prompt"', b'"input"')
_FIRST_TURN = b'"user"'
_TURN_END = b'"}'
_NAMED = b'"prompt_cache_key"'
_NAMED_NEAR = 4096


def conversation_key(secret: bytes, organisation_id: str, model: str, body: bytes) -> int:
    """The place of a request's conversation on the ring: that of every later turn of it, too.

    Looked at is OpenAI's ``prompt_cache_key`` where the body has one near an end, else the first bytes of
    ``messages`` (or ``prompt``, ``input``) and of the first user's turn, as they stand there: nothing is
    parsed. A body that is laid out otherwise still gets a place, only not always the one of its next turn.

    Args:
        secret: the Hub's own, at most 64 bytes.
        organisation_id: who asks.
        model: what is asked for.
        body: the request as it came.
    """
    digest = blake2b(f"{organisation_id}\0{model}\0".encode(), key=secret, digest_size=RING_BITS // 8)
    for part in _named(body) or _beginning(body):
        digest.update(part)
    return int.from_bytes(digest.digest())


def _named(body: bytes) -> tuple[bytes, ...]:
    at = body.find(_NAMED, 0, _NAMED_NEAR)
    if at < 0:
        at = body.find(_NAMED, max(len(body) - _NAMED_NEAR, 0))
    if at < 0:
        return ()
    value = body[at + len(_NAMED) : at + len(_NAMED) + TURN_BYTES].lstrip(b" :\t\r\n")
    return (_NAMED, value[: value.find(b'"', 1) + 1 or None])


def _beginning(body: bytes) -> tuple[bytes, ...]:
    begin = body.find(_MESSAGES, 0, _LOOK_BYTES)
    turn = body.find(_FIRST_TURN, begin, begin + _LOOK_BYTES) if begin >= 0 else -1
    if turn >= 0:
        end = body.find(_TURN_END, turn, turn + TURN_BYTES)
        last = turn + TURN_BYTES if end < 0 else end
        return body[begin : min(turn, begin + PREFIX_BYTES)], body[turn:last]
    others = (body.find(name, 0, _LOOK_BYTES) for name in _OTHER_BEGINNINGS)
    begin = next((at for at in others if at >= 0), max(begin, 0))
    return (body[begin : begin + TURN_BYTES],)


@lru_cache(maxsize=1 << 16)
def position(node_id: str) -> int:
    """A node's place on the ring, which is the same on every Hub."""
    return int.from_bytes(blake2b(node_id.encode(), digest_size=RING_BITS // 8).digest())


def distance(place: int, key: int) -> int:
    """How far a place lies after a key, going round."""
    return (place - key) & RING_MASK


def nearest(candidates: Iterable[Candidate], key: int) -> list[Candidate]:
    """The nodes that follow a key, next first; at most `WALK`."""
    return sorted(candidates, key=lambda each: distance(position(each.facts.node_id), key))[:WALK]
