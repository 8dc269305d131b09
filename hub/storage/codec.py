"""Between rows and records.

Owns the reading of stored text, where the rule is that what cannot be read becomes what refuses. Must not
know connections or transactions.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from functools import lru_cache
from typing import Any

import msgspec
from sqlalchemy import Row, RowMapping, Table

from hub.policy import NodeFacts, RegionAuthority, Sharing, TrustClass
from hub.quotas import UNLIMITED, Allowance
from hub.storage.records import (
    Account,
    AdminToken,
    ApiKey,
    DeviceEnrollment,
    EnrollmentStatus,
    Invitation,
    JoinToken,
    Node,
    Organisation,
    PortalSession,
    Region,
    Role,
    SecondStep,
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


LIMITS = tuple(Allowance.__dataclass_fields__)
"""The columns of a limited thing, in the tables of keys and organisations alike."""
CEILING = "ceiling_"
"""Begins the names under which an organisation's limits are selected beside a key."""


def allowance(row: RowMapping, prefix: str = "") -> Allowance:
    """Read limits; what is no limit that anybody could have set is one that lets nothing through."""
    return Allowance(**{name: _limit(row[prefix + name]) for name in LIMITS})


def allowance_values(limits: Allowance) -> dict[str, int | None]:
    """Limits as columns."""
    return {name: getattr(limits, name) for name in LIMITS}


def allowance_told(limits: Allowance) -> dict[str, int]:
    """Those limits that there are, as the audit log has them."""
    return {name: value for name, value in allowance_values(limits).items() if value is not None}


def _limit(value: object) -> int | None:
    if value is None:
        return None
    return value if isinstance(value, int) and value > 0 else 0


def _others(row: RowMapping) -> dict[str, Any]:
    return {name: value for name, value in row.items() if name not in LIMITS and not name.startswith(CEILING)}


def values_of(record: object, table: Table) -> dict[str, Any]:
    """The fields of a record that a table has columns for; those stored as text are the caller's to write."""
    names = [column.name for column in table.columns]
    return {name: getattr(record, name) for name in names if hasattr(record, name)}


def organisation(row: RowMapping) -> Organisation:
    """Read an organisation."""
    return Organisation(**_others(row), limits=allowance(row))


def account(row: RowMapping) -> Account:
    """Read an account; a role that cannot be read is the least one."""
    return Account(**{**row, "role": role(row["role"])})


def role(text: str) -> Role:
    """Read a role; one that cannot be read is the least."""
    return Role(text) if text in set(Role) else Role.AUDITOR


def admin_token(row: RowMapping) -> AdminToken:
    """Read an admin token, leaving its hash behind."""
    values = {name: value for name, value in row.items() if name != "hash"}
    return AdminToken(**{**values, "role": role(row["role"])})


def invitation(row: RowMapping) -> Invitation:
    """Read an invitation, leaving its hash behind."""
    values = {name: value for name, value in row.items() if name != "hash"}
    return Invitation(**{**values, "role": role(row["role"])})


def second_step(row: RowMapping) -> SecondStep:
    """Read what an account's codes come from."""
    return SecondStep(**row)


def portal_session(row: RowMapping) -> PortalSession:
    """Read a portal session."""
    return PortalSession(**row)


def api_key(row: RowMapping) -> ApiKey:
    """Read an API key; damaged regions reach nothing, a damaged model list allows nothing."""
    regions, models = read_set(row["regions"]), row["models"]
    return ApiKey(
        **{
            **_others(row),
            "limits": allowance(row),
            "ceiling": allowance(row, CEILING) if f"{CEILING}monthly_tokens" in row else UNLIMITED,
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
    values["sharing"] = _sharing(values["sharing"], values.pop("shared_with"))
    values["trust"] = _trust(values["trust"])
    values["machine"] = read_map(values["machine"])
    values["region_confirmed"] = bool(values["region_confirmed"])
    return Node(**values)


def node_facts(row: Row[Any], authority: RegionAuthority) -> NodeFacts:
    """Read of a node what the policy judges; see `node`."""
    node_id, owner_id, region, confirmed, trust, sharing, shared_with = tuple(row)
    return NodeFacts(
        node_id=node_id,
        owner_id=owner_id,
        region=region,
        region_confirmed=bool(confirmed) or authority is RegionAuthority.OWNER,
        trust=_trust(trust),
        sharing=_sharing(sharing, shared_with),
    )


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
    return UsageRecord(**row)


@lru_cache(maxsize=1024)
def _sharing(kind: str, organisations: str) -> Sharing | None:
    shared_with = read_set(organisations)
    if shared_with is None:
        return None
    try:
        return Sharing.parse(kind, shared_with)
    except ValueError:
        return None


@lru_cache(maxsize=64)
def _trust(text: str) -> TrustClass | None:
    try:
        return TrustClass.parse(text)
    except ValueError:
        return None
