"""The Hub's parts, put together: what every handler can reach.

Owns the names of the parts and nothing else; `hub.serve` builds one, `hub.app` serves it. It knows no HTTP.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from hub.addresses import Addresses
from hub.changes import Changes
from hub.clones import CloneWatch
from models.catalog import Catalog

if TYPE_CHECKING:  # handlers import this module for the type alone; it must not pull the parts in with it
    from hub.accounts import AccountService
    from hub.admin_tokens import AdminTokenService
    from hub.admission import Admission
    from hub.budgets import Budgets
    from hub.config import HubConfig
    from hub.dispatch import Dispatcher
    from hub.enrollment import EnrollmentService
    from hub.idempotency import Idempotency
    from hub.jobs import Jobs
    from hub.journal import Journal
    from hub.key_use import KeyUse
    from hub.limits import Limits
    from hub.members import MemberService
    from hub.metering import Meter
    from hub.metrics import Metrics
    from hub.registry import Registry
    from hub.second_step import SecondStepService
    from hub.single_sign_on import SingleSignOn
    from hub.storage.repositories import Storage
    from tunnel.tracing import Tracing


@dataclass(kw_only=True, slots=True)
class Hub:
    """One running Hub. ``clock`` gives UTC seconds since the epoch; ``key`` signs credentials and tickets."""

    config: HubConfig
    hub_id: str
    key: Ed25519PrivateKey
    storage: Storage
    accounts: AccountService
    members: MemberService
    second_step: SecondStepService
    single_sign_on: SingleSignOn | None
    admin_tokens: AdminTokenService
    idempotency: Idempotency
    changes: Changes
    clones: CloneWatch
    catalog: Catalog
    enrollment: EnrollmentService
    meter: Meter
    journal: Journal
    registry: Registry
    jobs: Jobs
    admission: Admission
    budgets: Budgets
    key_use: KeyUse
    limits: Limits
    dispatcher: Dispatcher
    metrics: Metrics
    tracing: Tracing
    addresses: Addresses
    clock: Callable[[], float]
