"""What machines say about themselves when they ask to be enrolled, and the node that is made of it.

Owns the checks of those words. Nothing of them is judged; they are shown to people and bounded here. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hub.errors import InvalidInput
from hub.identifiers import NAME_LIMIT, new_id
from hub.placement import Placement
from hub.storage.codec import write_map
from hub.storage.records import Node
from tunnel.errors import CredentialInvalid
from tunnel.identity import decode_public_key, encode_public_key

_MAX_MACHINE_BYTES = 8192


def new_node(
    organisation_id: str,
    placement: Placement,
    *,
    now: float,
    public_key: str | None = None,
    machine: Mapping[str, Any] | None = None,
) -> Node:
    """A node to be stored. One that waits brings key and description itself, within the transaction."""
    return Node(
        id=new_id("node"),
        organisation_id=organisation_id,
        name=placement.name,
        public_key="" if public_key is None else checked_public_key(public_key),
        region=placement.region,
        region_confirmed=placement.region_confirmed,
        trust=placement.trust,
        sharing=placement.sharing,
        machine={} if machine is None else checked_machine(machine),
        generation=0,
        created_at=now,
    )


def checked_public_key(text: str) -> str:
    """An Ed25519 public key, base64url of its raw bytes.

    Raises:
        InvalidInput: it is not one.
    """
    try:
        key = decode_public_key(text)
    except CredentialInvalid as error:
        raise InvalidInput("public_key", "is not an Ed25519 key in base64url") from error
    return encode_public_key(key)  # the last digit can be written in four ways


def checked_machine(machine: Mapping[str, Any]) -> Mapping[str, Any]:
    """A description that is not too long.

    Raises:
        InvalidInput: it is.
    """
    if len(write_map(machine)) > _MAX_MACHINE_BYTES:
        raise InvalidInput("machine", f"must have at most {_MAX_MACHINE_BYTES} bytes of JSON")
    return machine


def suggested_name(name: str) -> str:
    """A machine's wish, made fit: nobody sits there to correct it."""
    return "".join(filter(str.isprintable, name)).strip()[:NAME_LIMIT].strip() or "node"
