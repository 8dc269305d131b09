"""Between rows and records.

Owns the reading of stored text, where the rule is that what cannot be read becomes what refuses. Must not
know connections or transactions.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import msgspec
from sqlalchemy import RowMapping, Table

from hub.policy import Sharing, TrustClass
from hub.storage.records import (
    Account,
    ApiKey,
    DeviceEnrollment,
    EnrollmentStatus,
    JoinToken,
    Node,
    Organisation,
    PortalSession,
    Region,
    Role,
    UsageRecord,
)

UNREADABLE_REGION = "!unreadable"
"""Stands for regions that could not be read: in no tree, so a key that carries it reaches no node."""


def write_set(values: Collection[str]) -> str:
    """A set of strings as JSON text, sorted so that equal sets are equal text."""
    return msgspec.json.encode(sorted(values)).decode()


def write_map(values: Mapping[str, Any]) -> str:
    """A mapping as JSON text."""
    return msgspec.json.encode(dict(values)).decode()


def read_set(text: str) -> frozenset[str] | None:
    """What :func:`write_set` wrote, ``None`` for anything else."""
    try:
        return frozenset(msgspec.json.decode(text, type=list[str]))
    except msgspec.DecodeError:
        return None


def read_map(text: str) -> Mapping[str, Any]:
    """What :func:`write_map` wrote; empty for anything else, as nothing is judged by it."""
    try:
        return msgspec.json.decode(text, type=dict[str, Any])
    except msgspec.DecodeError:
        return {}


def values_of(record: object, table: Table) -> dict[str, Any]:
    """The fields of a record that a table has columns for; those stored as text are the caller's to write."""
    names = [column.name for column in table.columns]
    return {name: getattr(record, name) for name in names if hasattr(record, name)}


def organisation(row: RowMapping) -> Organisation:
    """Read an organisation."""
    return Organisation(**row)


def account(row: RowMapping) -> Account:
    """Read an account; a role that cannot be read is the least one."""
    role = Role(row["role"]) if row["role"] in set(Role) else Role.AUDITOR
    return Account(**{**row, "role": role})


def portal_session(row: RowMapping) -> PortalSession:
    """Read a portal session."""
    return PortalSession(**row)


def api_key(row: RowMapping) -> ApiKey:
    """Read an API key; damaged regions reach nothing, a damaged model list allows nothing."""
    regions, models = read_set(row["regions"]), row["models"]
    return ApiKey(
        **{
            **row,
            "regions": frozenset({UNREADABLE_REGION}) if regions is None else regions,
            "models": None if models is None else read_set(models) or frozenset(),
        }
    )


def region(row: RowMapping) -> Region:
    """Read a region."""
    return Region(**row)


def node(row: RowMapping) -> Node:
    """Read a node; a damaged trust class or sharing rule is ``None``, which no policy accepts."""
    values = dict(row)
    shared_with = read_set(values.pop("shared_with"))
    values["sharing"] = _sharing(values["sharing"], shared_with)
    values["trust"] = _trust(values["trust"])
    values["machine"] = read_map(values["machine"])
    values["region_confirmed"] = bool(values["region_confirmed"])
    return Node(**values)


def device_enrollment(row: RowMapping) -> DeviceEnrollment:
    """Read an enrollment, leaving the hashes of its codes behind."""
    values = {name: value for name, value in row.items() if not name.endswith("_hash")}
    return DeviceEnrollment(
        **{**values, "machine": read_map(row["machine"]), "status": EnrollmentStatus(row["status"])}
    )


def join_token(row: RowMapping) -> JoinToken:
    """Read a join token, leaving its hash behind."""
    values = {name: value for name, value in row.items() if name != "hash"}
    return JoinToken(**{**values, "region_confirmed": bool(row["region_confirmed"])})


def usage_record(row: RowMapping) -> UsageRecord:
    """Read a usage record."""
    return UsageRecord(**{name: value for name, value in row.items() if name != "day"})


def _sharing(kind: str, shared_with: frozenset[str] | None) -> Sharing | None:
    if shared_with is None:
        return None
    try:
        return Sharing.parse(kind, shared_with)
    except ValueError:
        return None


def _trust(text: str) -> TrustClass | None:
    try:
        return TrustClass.parse(text)
    except ValueError:
        return None
