"""The Hub's tables.

Owns names, types and constraints, in a form that SQLite and PostgreSQL both take: text identifiers, times as
UTC seconds since the epoch in double precision, and structured values as JSON text that storage itself
encodes, so that a damaged row is read as a refusal and not as an exception. The migrations build the same
tables; a test compares the two.
"""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Double,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
)

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)

_ID = String(40)
_HASH = String(64)  # SHA-256 in hex


def _limits() -> list[Column[int]]:
    """What a key or an organisation may use; NULL is no limit."""
    return [
        Column("requests_per_minute", Integer, nullable=True),
        Column("tokens_per_minute", BigInteger, nullable=True),
        Column("concurrent_requests", Integer, nullable=True),
        Column("monthly_tokens", BigInteger, nullable=True),
    ]


settings = Table(
    "settings",
    metadata,
    Column("name", String(64), primary_key=True),
    Column("value", Text, nullable=False),
)

organisations = Table(
    "organisations",
    metadata,
    Column("id", _ID, primary_key=True),
    Column("name", String(100), nullable=False, unique=True),
    Column("created_at", Double, nullable=False),
    *_limits(),
)

accounts = Table(
    "accounts",
    metadata,
    Column("id", _ID, primary_key=True),
    Column("organisation_id", _ID, ForeignKey("organisations.id"), nullable=False, index=True),
    Column("email", String(254), nullable=False, unique=True),
    Column("password_hash", Text, nullable=False),
    Column("role", String(16), nullable=False),
    Column("created_at", Double, nullable=False),
)

portal_sessions = Table(
    "portal_sessions",
    metadata,
    Column("id", _HASH, primary_key=True),
    Column("account_id", _ID, ForeignKey("accounts.id", ondelete="CASCADE"), nullable=False, index=True),
    Column("csrf_token", String(64), nullable=False),
    Column("created_at", Double, nullable=False),
    Column("expires_at", Double, nullable=False),
    Column("address", String(64), nullable=True),
    Column("browser", String(64), nullable=True),
)

invitations = Table(
    # They go with whoever invited: nobody is let in by somebody who is gone.
    "invitations",
    metadata,
    Column("id", _ID, primary_key=True),
    Column("organisation_id", _ID, ForeignKey("organisations.id"), nullable=False, index=True),
    Column("name", String(100), nullable=False),
    Column("role", String(16), nullable=False),
    Column("hash", _HASH, nullable=False, unique=True),
    Column("invited_by", _ID, ForeignKey("accounts.id", ondelete="CASCADE"), nullable=False, index=True),
    Column("created_at", Double, nullable=False),
    Column("expires_at", Double, nullable=False),
)

second_steps = Table(
    "second_steps",
    metadata,
    Column("account_id", _ID, ForeignKey("accounts.id", ondelete="CASCADE"), primary_key=True),
    Column("sealed_secret", Text, nullable=False),
    Column("created_at", Double, nullable=False),
    Column("confirmed_at", Double, nullable=True),
    Column("last_step", BigInteger, nullable=False),
)

recovery_codes = Table(
    "recovery_codes",
    metadata,
    Column("account_id", _ID, ForeignKey("accounts.id", ondelete="CASCADE"), primary_key=True),
    Column("hash", _HASH, primary_key=True),
)

identities = Table(
    # What an identity provider calls an account's owner: the only way from one to the other.
    "identities",
    metadata,
    Column("issuer", String(500), primary_key=True),
    Column("subject", String(255), primary_key=True),
    Column("account_id", _ID, ForeignKey("accounts.id", ondelete="CASCADE"), nullable=False, index=True),
    Column("created_at", Double, nullable=False),
)

api_keys = Table(
    "api_keys",
    metadata,
    Column("id", _ID, primary_key=True),
    Column("organisation_id", _ID, ForeignKey("organisations.id"), nullable=False, index=True),
    Column("name", String(100), nullable=False),
    Column("prefix", String(16), nullable=False),
    Column("hash", _HASH, nullable=False, unique=True),
    Column("fleet", String(16), nullable=False),
    Column("regions", Text, nullable=False),
    Column("minimum_trust", String(16), nullable=False),
    Column("models", Text, nullable=True),
    Column("created_at", Double, nullable=False),
    Column("expires_at", Double, nullable=True),
    Column("revoked_at", Double, nullable=True),
    Column("last_used_at", Double, nullable=True),
    *_limits(),
    Column("previous_prefix", String(16), nullable=True),
    Column("previous_hash", _HASH, nullable=True),
    Column("previous_expires_at", Double, nullable=True),
    Column("previous_used_at", Double, nullable=True),
    Index("ix_api_keys_previous_hash", "previous_hash", unique=True),
)

regions = Table(
    "regions",
    metadata,
    Column("code", String(32), primary_key=True),
    Column("parent", String(32), ForeignKey("regions.code"), nullable=True),
    Column("name", String(100), nullable=False),
)

nodes = Table(
    "nodes",
    metadata,
    Column("id", _ID, primary_key=True),
    Column("organisation_id", _ID, ForeignKey("organisations.id"), nullable=False, index=True),
    Column("name", String(100), nullable=False),
    Column("public_key", String(64), nullable=False),
    Column("region", String(32), ForeignKey("regions.code"), nullable=True),
    Column("region_confirmed", Boolean, nullable=False),
    Column("trust", String(16), nullable=False),
    Column("sharing", String(16), nullable=False),
    Column("shared_with", Text, nullable=False),
    Column("machine", Text, nullable=False),
    Column("generation", Integer, nullable=False),
    Column("created_at", Double, nullable=False),
    Column("revoked_at", Double, nullable=True),
    Column("last_seen_at", Double, nullable=True),
    Column("next_public_key", String(64), nullable=True),
    Column("next_key_expires_at", Double, nullable=True),
    Column("draining_since", Double, nullable=True),
)

device_enrollments = Table(
    "device_enrollments",
    metadata,
    Column("id", _ID, primary_key=True),
    Column("device_code_hash", _HASH, nullable=False, unique=True),
    Column("user_code_hash", _HASH, nullable=False, unique=True),
    Column("public_key", String(64), nullable=False),
    Column("name", String(100), nullable=False),
    Column("machine", Text, nullable=False),
    Column("address", String(64), nullable=False, index=True),
    Column("status", String(16), nullable=False),
    Column("interval", Double, nullable=False),
    Column("created_at", Double, nullable=False),
    Column("expires_at", Double, nullable=False, index=True),
    Column("last_polled_at", Double, nullable=True),
    Column("node_id", _ID, ForeignKey("nodes.id"), nullable=True),
)

join_tokens = Table(
    "join_tokens",
    metadata,
    Column("id", _ID, primary_key=True),
    Column("organisation_id", _ID, ForeignKey("organisations.id"), nullable=False, index=True),
    Column("name", String(100), nullable=False),
    Column("hash", _HASH, nullable=False, unique=True),
    Column("region", String(32), ForeignKey("regions.code"), nullable=True),
    Column("region_confirmed", Boolean, nullable=False),
    Column("max_uses", Integer, nullable=False),
    Column("uses", Integer, nullable=False),
    Column("created_at", Double, nullable=False),
    Column("expires_at", Double, nullable=False),
    Column("revoked_at", Double, nullable=True),
)

admin_tokens = Table(
    "admin_tokens",
    metadata,
    Column("id", _ID, primary_key=True),
    Column("organisation_id", _ID, ForeignKey("organisations.id"), nullable=False, index=True),
    Column("name", String(100), nullable=False),
    Column("prefix", String(16), nullable=False),
    Column("hash", _HASH, nullable=False, unique=True),
    Column("role", String(16), nullable=False),
    Column("created_at", Double, nullable=False),
    Column("expires_at", Double, nullable=False),
    Column("revoked_at", Double, nullable=True),
    Column("last_used_at", Double, nullable=True),
)

idempotency_records = Table(
    # The client's key is kept as a keyed hash, the answer encrypted: it may hold a secret that is shown once.
    "idempotency_records",
    metadata,
    Column("token_id", _ID, ForeignKey("admin_tokens.id"), primary_key=True),
    Column("key", _HASH, primary_key=True),
    Column("organisation_id", _ID, ForeignKey("organisations.id"), nullable=False, index=True),
    Column("fingerprint", _HASH, nullable=False),
    Column("answer", LargeBinary, nullable=True),  # NULL: begun, and its end was not seen
    Column("expires_at", Double, nullable=False, index=True),
)

usage_records = Table(
    # Without foreign keys: a record of what was answered is kept whatever becomes of the key or the node.
    "usage_records",
    metadata,
    Column("request_id", _ID, primary_key=True),
    Column("key_id", _ID, nullable=False),
    Column("organisation_id", _ID, nullable=False),
    Column("node_id", _ID, nullable=False),
    Column("region", String(32), nullable=True),
    Column("model", String(200), nullable=False),
    Column("prompt_tokens", Integer, nullable=False),
    Column("cached_tokens", Integer, nullable=False),
    Column("completion_tokens", Integer, nullable=False),
    Column("ttft_ms", Double, nullable=True),
    Column("duration_ms", Double, nullable=False),
    Column("outcome", String(64), nullable=False),
    Column("created_at", Double, nullable=False),
    Index("ix_usage_records_organisation_id_created_at", "organisation_id", "created_at"),
)

audit_events = Table(
    # Without foreign keys: what was done is kept whatever becomes of those who did it.
    "audit_events",
    metadata,
    Column("sequence", BigInteger, primary_key=True, autoincrement=False),
    Column("time_ms", BigInteger, nullable=False),  # whole, because it is hashed
    Column("organisation_id", _ID, nullable=True),
    Column("actor", _ID, nullable=False),
    Column("action", String(64), nullable=False),
    Column("subject", String(100), nullable=False),
    Column("details", Text, nullable=False),
    Column("batch", String(100), nullable=True, index=True),
    Column("previous_hash", _HASH, nullable=False),
    Column("hash", _HASH, nullable=False),
    Index("ix_audit_events_organisation_id_sequence", "organisation_id", "sequence"),
    Index("ix_audit_events_organisation_id_action_sequence", "organisation_id", "action", "sequence"),
    Index("ix_audit_events_action_sequence", "action", "sequence"),
    Index("ix_audit_events_actor", "actor"),
)

audit_head = Table(
    # One row, locked by whoever writes an event: so that there is one chain.
    "audit_head",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("sequence", BigInteger, nullable=False),
    Column("hash", _HASH, nullable=False),
)

audit_checkpoints = Table(
    "audit_checkpoints",
    metadata,
    Column("sequence", BigInteger, primary_key=True, autoincrement=False),
    Column("root", Boolean, primary_key=True),
    Column("time_ms", BigInteger, nullable=False),
    Column("token", Text, nullable=False),
)

pseudonyms = Table(
    "pseudonyms",
    metadata,
    Column("id", _ID, primary_key=True),
    Column("kind", String(16), nullable=False),
    Column("value", String(200), nullable=False),
    Column("used_at", Double, nullable=False),
    UniqueConstraint("kind", "value"),
)


def _rollup(name: str) -> Table:
    """Sums of usage records by organisation, facet, span of time, key and value; NULL there is '' here.

    Written in the transaction of the records, read by pages: see `hub.storage.rollups`. The key begins with
    what each query asks for, and SQLite keeps the rows in its order.
    """
    return Table(
        name,
        metadata,
        Column("organisation_id", _ID, primary_key=True),
        Column("facet", String(16), primary_key=True),
        Column("start", BigInteger, primary_key=True, autoincrement=False),
        Column("key_id", _ID, primary_key=True),
        Column("value", String(200), primary_key=True),
        Column("requests", BigInteger, nullable=False),
        Column("prompt_tokens", BigInteger, nullable=False),
        Column("cached_tokens", BigInteger, nullable=False),
        Column("completion_tokens", BigInteger, nullable=False),
        sqlite_with_rowid=False,
    )


usage_hours = _rollup("usage_hours")
usage_days = _rollup("usage_days")
usage_weeks = _rollup("usage_weeks")
