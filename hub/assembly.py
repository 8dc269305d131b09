"""The Hub's parts made from its settings, and those told of changes that keep copies.

Owns which setting goes where. Must not know sockets or in what order things start and stop.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from hub.accounts import AccountService
from hub.addresses import Addresses
from hub.admin_tokens import AdminTokenService
from hub.admission import Admission
from hub.api import openai_errors
from hub.budgets import Budgets
from hub.changes import Changes
from hub.clones import CloneWatch
from hub.composition import Hub
from hub.config import HubConfig, read_secret
from hub.demand import Demand
from hub.dispatch import Dispatcher
from hub.enrollment import EnrollmentService
from hub.errors import ConfigInvalid
from hub.idempotency import Idempotency
from hub.identity_provider import Client, IdentityProvider
from hub.jobs import Jobs
from hub.journal import Journal
from hub.key_use import KeyUse
from hub.limits import Limits
from hub.members import MemberService
from hub.metering import Meter
from hub.metrics import Metrics
from hub.registry import Registry
from hub.second_step import SecondStepService
from hub.single_sign_on import EntryRules, SingleSignOn
from hub.sources import StoredFacts, StoredUsage
from hub.sso_rules import parse_rule
from hub.storage.records import UsageRecord
from hub.storage.repositories import Storage
from models.catalog import Catalog
from tunnel.tracing import Tracing, open_tracing
from tunnel.version import __version__


class Copies:
    """Everything copied from the database, for the watch on its revision."""

    def __init__(self, hub: Hub) -> None:
        """Watch over a Hub's copies."""
        self._hub = hub

    @property
    def incomplete(self) -> bool:
        """Whether something could not be read and must be asked for again."""
        return self._hub.registry.facts.incomplete

    async def reload(self) -> None:
        """Read all of it anew."""
        self._hub.admission.forget()
        await self._hub.registry.facts.load()

    async def complete(self) -> None:
        """Read what could not be read; keys that are known stay known."""
        await self._hub.registry.facts.load()

    def forget(self) -> None:
        """Trust none of it any more: the database cannot be asked."""
        self._hub.admission.forget()
        self._hub.registry.facts.forget()


async def compose(
    config: HubConfig,
    catalog: Catalog,
    storage: Storage,
    key: Ed25519PrivateKey,
    clock: Callable[[], float],
) -> tuple[Hub, StoredFacts]:
    """Build the parts and let those that keep copies hear of changes."""
    hub_id = await storage.settings.hub_id()
    changes = Changes()
    source = StoredFacts(storage, config.region_authority)
    registry = Registry(source, slots_of=lambda model: _slots(catalog, model))
    key_use = KeyUse(source)
    admission = Admission(source, clock, key_use.used)
    meter = Meter(storage, config.spool_dir)
    metrics = Metrics(
        models=[spec.id for spec in catalog],
        sessions=lambda: len(registry.connected_ids()),
        waiting=lambda: meter.waiting,
    )
    journal = Journal(storage, config.journal_dir, clock)
    budgets = Budgets(StoredUsage(storage, meter), clock)
    accounts = AccountService(storage, clock, on_refused=journal.sign_in_refused)

    def recorded(record: UsageRecord) -> None:
        metrics.used(record)
        budgets.tokens.add(record)

    changes.subscribe(registry.facts.obey)
    changes.subscribe(admission.obey)
    hub = Hub(
        config=config,
        hub_id=hub_id,
        key=key,
        storage=storage,
        accounts=accounts,
        admin_tokens=AdminTokenService(storage, clock, on_refused=journal.admin_token_refused),
        idempotency=Idempotency(storage, key, clock),
        members=MemberService(storage, accounts, clock),
        second_step=SecondStepService(storage, key, config.name, clock),
        single_sign_on=_single_sign_on(config, storage, clock),
        changes=changes,
        clones=CloneWatch(),
        catalog=catalog,
        enrollment=EnrollmentService(storage, key, hub_id, clock, changes),
        meter=meter,
        journal=journal,
        registry=registry,
        jobs=Jobs(registry.session, registry.facts, clock, on_given=journal.commanded),
        admission=admission,
        budgets=budgets,
        key_use=key_use,
        limits=Limits(
            max_requests=config.max_concurrent_requests,
            max_per_key=config.max_concurrent_per_key,
            monthly=budgets.tokens,
            clock=clock,
            timer=asyncio.get_running_loop().time,
        ),
        dispatcher=Dispatcher(
            registry=registry,
            admission=admission,
            catalog=catalog,
            usage=meter,
            hub_key=key,
            clock=clock,
            queue_timeout_s=config.queue_timeout_s,
            read_error=openai_errors.from_upstream,
            on_record=recorded,
            on_refused=journal.refused,
            max_waiting=config.max_waiting_per_model,
            demand=Demand(config.spread_after_s),
        ),
        metrics=metrics,
        tracing=_tracing(config),
        addresses=Addresses(),
        clock=clock,
    )
    return hub, source


def _tracing(config: HubConfig) -> Tracing:
    try:
        return open_tracing(
            config.otlp_endpoint, service="porten-hub", version=__version__, ratio=config.trace_ratio
        )
    except ImportError:
        words = "otlp_endpoint: OpenTelemetry is not installed: pip install 'porten[telemetry]', or unset it"
        raise ConfigInvalid([words]) from None


def _single_sign_on(config: HubConfig, storage: Storage, clock: Callable[[], float]) -> SingleSignOn | None:
    if config.oidc_issuer is None or config.oidc_client_id is None or config.oidc_client_secret_file is None:
        return None
    client = Client(
        issuer=config.oidc_issuer,
        client_id=config.oidc_client_id,
        client_secret=read_secret(config.oidc_client_secret_file, "oidc_client_secret_file"),
        scopes=config.oidc_scopes,
    )
    entry = EntryRules(
        name=config.oidc_name,
        claim=config.oidc_claim,
        rules=tuple(map(parse_rule, config.oidc_rules)),
        domains=config.oidc_email_domains,
    )
    return SingleSignOn(IdentityProvider(client, clock), entry, storage, clock)


def _slots(catalog: Catalog, model: str) -> int:
    spec = catalog.get(model)
    return 1 if spec is None else spec.slots
