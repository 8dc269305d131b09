"""The numbers on the Hub's pages are those in the code."""

import pytest

from hub import (
    accounts,
    dispatch,
    enrollment,
    identity_provider,
    journal,
    last_seen,
    members,
    quotas,
    receipts,
    registry,
    sealing,
    serve,
    totp,
)
from hub.admin_tokens import MAX_LIFETIME_S
from hub.api import inference
from hub.api.admin import route as admin_route
from hub.api.admin import wire
from hub.config import HubConfig
from hub.idempotency import KEPT_S
from hub.portal import audit, forms, node_list, sealed, sessions, usage
from hub.storage import engine
from tests.unit.hub.docs.pages import page
from tunnel import identity
from tunnel.gate import DEFAULT_LIMITS

NUMBERS = {
    "admin": [
        f"after at most {MAX_LIFETIME_S / 86_400:g}",
        f"at most {wire.MAX_PAGE}",
        f"at most {admin_route.MAX_BODY_BYTES // 1024} KiB",
        f"deeper than {admin_route.MAX_DEPTH} levels",
        f"within {KEPT_S / 3600:g} hours",
    ],
    "api": [f"or {quotas.UNSAID_COMPLETION} where it says neither", f"a guess of {quotas.SOON_S:g} second"],
    "policy": [
        f"({dispatch.MAX_TRIES} tries in all)",
        f"good for {dispatch.TICKET_LIFETIME_S} seconds",
        f"may differ by {identity.CLOCK_SKEW_S:g} seconds",
        f"({HubConfig.model_fields['database_outage_grace_s'].default:g} seconds)",
        f"within {registry.REPLACED_DRAIN_S / 60:g} minutes",
    ],
    "hub": [
        f"({accounts.MINIMUM_PASSWORD} characters or more)",
        f"{engine.CONNECT_S:g} seconds for a connection, {engine.ANSWER_S:g} for a transaction",
        f"spread over {DEFAULT_LIMITS.least_smear_s:g} seconds",
        f"than {inference.KEEP_ALIVE_S:g} seconds before",
        f"and every {last_seen.SEEN_EVERY_S:g} seconds",
        f"stay open for {serve.KEEP_ALIVE_S} seconds",
        f"the {DEFAULT_LIMITS.handshakes_per_address} handshakes",
    ],
    "evidence": [
        f"within {receipts.CLOCK_TOLERANCE_S:g} seconds",
        f"log within {journal.FLUSH_EVERY_S:g} seconds",
        f"every {sealing.EVERY_EVENTS:,} events",
    ],
    "portal": [
        f"{audit.PAGE} a page",
        f"lasts {sessions.SESSION_S // 3600} hours",
        f"at most {registry.RETURN_S:g} seconds",
        f"At most {forms.MAX_FORM_BYTES // 1024} KiB",
        f"signing algorithms {', '.join(identity_provider.ALGORITHMS)}",
        f"waited for {identity_provider.TIMEOUT_S:g} seconds",
        f"once, within {members.INVITATION_S // 86_400} days",
        f"{totp.RECOVERY_CODES} recovery codes",
        f"within {sealed.SEALED_S // 60} minutes of the password",
        f"at least {accounts.MINIMUM_PASSWORD} characters",
        f"good for {enrollment.CODE_LIFETIME_S / 60:g} minutes",
        f"{node_list.PAGE_NODES} on a page",
        f"at most {usage.MOST_LINES:,} lines",
    ],
}


@pytest.mark.parametrize(("name", "phrase"), [(name, each) for name in NUMBERS for each in NUMBERS[name]])
def test_a_number_is_the_one_in_the_code(name: str, phrase: str) -> None:
    assert phrase in " ".join(page(name).split())
