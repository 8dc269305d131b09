"""docs/policy.md, docs/hub.md, docs/evidence.md and docs/portal.md say what is so."""

import itertools
import logging
import re
from collections.abc import Iterable, Iterator
from dataclasses import fields, replace
from pathlib import Path

import msgspec
import pytest
import typer.main
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from prometheus_client.parser import text_string_to_metric_families

from hub import (
    accounts,
    dispatch,
    enrollment,
    identity_provider,
    journal,
    last_seen,
    members,
    permissions,
    quotas,
    receipts,
    refusals,
    registry,
    sealing,
    serve,
    totp,
)
from hub import policy as rule
from hub.admin_tokens import MAX_LIFETIME_S
from hub.api import inference
from hub.api.admin import route as admin_route
from hub.api.admin import views as admin_views
from hub.api.admin import wire
from hub.api.admin.errors import ADMIN_ERRORS
from hub.api.request import Headers, wishes
from hub.audit import Checkpoint, Problem
from hub.cli import app
from hub.config import HubConfig, variable
from hub.default_regions import DEFAULT_REGIONS
from hub.idempotency import KEPT_S
from hub.logs import LineFormatter
from hub.metrics import Metrics
from hub.permissions import Act
from hub.portal import audit, forms, node_list, sealed, security, sessions, usage, views
from hub.portal.sessions import Visitor
from hub.receipts import policy_document
from hub.router import Reason, Refusal, RefusalCode
from hub.storage import engine
from hub.storage.records import Account, Organisation, Role, UsageRecord
from tunnel import identity
from tunnel.errors import TicketRefused
from tunnel.gate import DEFAULT_LIMITS
from tunnel.identity import NodeCredential, Ticket, TicketIssuer, TicketVerifier
from tunnel.receipts import Receipt
from tunnel.stats import load_of

DOCS = Path(__file__).parents[3] / "docs"
POLICY, HUB, PORTAL, EVIDENCE, ADMIN = (
    (DOCS / name).read_text() for name in ("policy.md", "hub.md", "portal.md", "evidence.md", "admin.md")
)
TREE = rule.RegionTree({region.code: region.parent for region in DEFAULT_REGIONS})


def table(page: str, *header: str) -> list[list[str]]:
    """The rows of the one table with this header."""
    lines = page.splitlines()
    (start,) = (number for number, line in enumerate(lines) if cells(line) == list(header))
    return [cells(line) for line in itertools.takewhile(lambda line: line[:1] == "|", lines[start + 2 :])]


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.removeprefix("|").removesuffix("|").split("|")]


def codes(cell: str) -> list[str]:
    return re.findall(r"`([^`]+)`", cell)


def first_codes(rows: Iterable[list[str]]) -> list[str]:
    return [codes(row[0])[0] for row in rows]


# --- docs/policy.md


def test_the_gates_are_named_in_their_order() -> None:
    hub, node = POLICY.split("## The node's own check")
    assert first_codes(table(hub, "gate", "refuses")) == [gate.value for gate in rule.Gate]
    assert first_codes(table(node, "gate", "refuses")) == list(WRONG)


def test_every_value_of_a_rule_is_named_and_the_defaults_are_the_ones_in_force() -> None:
    rules = {row[0]: row for row in table(POLICY, "rule", "values", "a new key has")}
    policy = rule.Policy("acme")
    assert codes(rules["fleet"][1]) == [fleet.value for fleet in rule.Fleet]
    assert codes(rules["fleet"][2]) == [policy.fleet.value]
    assert codes(rules["least trust class"][1]) == [trust.label for trust in sorted(rule.TrustClass)]
    assert codes(rules["least trust class"][2]) == [policy.minimum_trust.label]
    assert (rules["regions"][2], policy.regions) == ("none", frozenset())
    assert first_codes(table(POLICY, "fleet", "the key may use")) == [fleet.value for fleet in rule.Fleet]
    facts = {row[0]: row for row in table(POLICY, "fact", "values", "decided by")}
    assert codes(facts["sharing"][1]) == [kind.value for kind in rule.SharingKind]
    assert f"`{rule.Sharing().kind.value}` until then" in facts["sharing"][2]


def test_every_region_authority_is_explained() -> None:
    rows = table(POLICY, "`region_authority`", "a region is confirmed")
    assert first_codes(rows) == [authority.value for authority in rule.RegionAuthority]
    (default,) = (codes(row[0])[0] for row in rows if row[0].endswith("(default)"))
    assert default == HubConfig.model_fields["region_authority"].default


EXAMPLES = table(
    POLICY, "fleet", "regions", "least trust", "owner", "sharing", "region", "trust", "headers", "decided"
)


@pytest.mark.parametrize("row", EXAMPLES, ids=" ".join)
def test_each_example_is_decided_as_written(row: list[str]) -> None:
    fleet, regions, least, owner, sharing, region, trust, headers, decided = row
    policy = rule.read_policy("acme", fleet.strip("`"), codes(regions), *(codes(least) or ["community"]))
    kind, *named = codes(sharing) or ["private"]
    node = rule.NodeFacts(
        node_id="node_a",
        owner_id=codes(owner)[0],
        region=next(iter(codes(region)), None),
        region_confirmed=bool(region) and "unconfirmed" not in region,
        trust=rule.TrustClass.parse(*(codes(trust) or ["community"])),
        sharing=rule.Sharing.parse(kind, named),
        revoked="revoked" in owner,
    )
    raw = [header.lower().encode().split(b": ") for header in codes(headers)]
    narrowing = wishes(Headers((name, value) for name, value in raw), warmup_budget_s=0).narrowing
    decision = rule.permits(policy, node, TREE, narrowing)
    assert decided == ("permitted" if decision.gate is None else f"`{decision.gate.value}`")


def test_the_examples_show_every_answer() -> None:
    assert {row[-1] for row in EXAMPLES} == {"permitted", *(f"`{gate.value}`" for gate in rule.Gate)}


def refusal(**counts: int) -> str:
    found = Refusal(RefusalCode.NO_AVAILABLE_NODE, {Reason(name): count for name, count in counts.items()})
    return refusals.no_available_node("smollm2-135m-instruct", found).message


def test_the_words_of_a_refusal_are_the_ones_sent() -> None:
    rows = {codes(row[0])[0]: row[1] for row in table(POLICY, "reason", "in the message")}
    assert list(rows) == [reason.value for reason in Reason]
    words = {name: text.partition(":")[0] for name, text in rows.items()}
    told = {name: text for name, text in words.items() if text != "not told"}
    said = {name: refusal(**{name: 3}).partition("Of your own nodes: 3 ")[2].rstrip(".") for name in told}
    assert said == told
    assert f"\n{refusal(offline=1, region=2)}\n" in POLICY


HUB_KEY, STRANGER = Ed25519PrivateKey.generate(), Ed25519PrivateKey.generate()
SAME = {"node_id": "node_a", "owner_id": "acme", "region": "eu-de"}
CREDENTIAL = NodeCredential(
    **SAME, trust="community", sharing="private", hub_id="hub_a", public_key="unused", issued_at=0
)
ASKED = {"organisation_id": "acme", "model": "tiny", "request_id": "req_a", "generation": 1}
TICKET = Ticket(**SAME, **ASKED, issued_at=1000, expires_at=1060)
WRONG = {
    "signature": {},
    "expired": {"issued_at": 900, "expires_at": 960},
    "node": {"node_id": "node_b"},
    "owner": {"owner_id": "other"},
    "region": {"region": "eu-fr"},
    "sharing": {"organisation_id": "other"},
    "request": {"request_id": "req_b"},
    "generation": {"generation": 2},
    "replay": {},
}


@pytest.mark.parametrize("gate", WRONG)
def test_a_gate_of_the_node_refuses_what_is_written(gate: str) -> None:
    verifier = TicketVerifier(CREDENTIAL, HUB_KEY.public_key())
    asked = {"now": 1000.0, "request_id": "req_a", "generation": 1}
    token = TicketIssuer(STRANGER if gate == "signature" else HUB_KEY).issue(replace(TICKET, **WRONG[gate]))
    if gate == "replay":
        assert verifier.verify(token, **asked) == TICKET
    with pytest.raises(TicketRefused) as refused:
        verifier.verify(token, **asked)
    assert refused.value.gate == gate


# --- docs/hub.md


def shown(name: str, value: object) -> str:
    match value:
        case None:
            return "unset"
        case bool():
            return f"`{value}`".lower()
        case ():
            return "none"
        case tuple():
            return f"`{','.join(value)}`"
        case Path():
            return f"`~/{value.relative_to(Path.home())}`"
        case float():
            return f"`{value:g}`"
    return f"`{value}`"


def test_every_setting_of_the_hub_has_its_variable_and_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("XDG_DATA_HOME", raising=False)
    rows = table(HUB, "setting", "variable", "default", "meaning")
    defaults = HubConfig()
    assert [(name, env, default) for name, env, default, _ in rows] == [
        (f"`{name}`", f"`{variable(name)}`", shown(name, getattr(defaults, name)))
        for name in HubConfig.model_fields
    ]
    assert all(meaning.endswith(".") for *_, meaning in rows)


def commands(group: object, path: tuple[str, ...] = ()) -> Iterator[tuple[str, object]]:
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from commands(command, (*path, name))
        else:
            yield " ".join((*path, name)), command


def options(command: object) -> dict[str, bool]:
    """The long options of a command, and whether each must be given."""
    return {
        option: parameter.required
        for parameter in command.params
        for option in parameter.opts
        if option.startswith("--")
    }


PROGRAM = typer.main.get_command(app)


def test_every_command_is_listed_with_its_options() -> None:
    written = {}
    for usage_line, _ in table(HUB, "command", "does"):
        (name,) = re.findall(r"^`porten-hub ([a-z][a-z-]*(?: [a-z][a-z-]*)*)", usage_line)
        written[name] = {
            option: not bracket for bracket, option in re.findall(r"(\[?)(--[a-z-]+)", usage_line)
        }
    assert written == {name: options(command) for name, command in commands(PROGRAM)}
    assert {option for option in options(PROGRAM) if "completion" not in option} <= set(
        re.findall(r"`(--[a-z-]+)(?: [A-Z]+)?`", HUB)
    )


def test_every_metric_is_listed_with_its_labels() -> None:
    metrics = Metrics(models=["tiny"], sessions=lambda: 0)
    metrics.answered("/v1/models", 200, "ok")
    metrics.used(UsageRecord("req_a", "key_a", "acme", "node_a", None, "tiny", 1, 0, 1, 1.0, 1.0, "ok", 0.0))
    tunnel = metrics.tunnel
    for counts in (tunnel.stats.handshakes, tunnel.stats.ends):
        counts["any"] += 1
    tunnel.stats.resets["sent", "any"] += 1
    tunnel.watch(lambda: load_of([], 0))
    families = [
        family
        for family in text_string_to_metric_families(metrics.text().decode())
        if not family.name.endswith("_created")
    ]
    names = [family.name + "_total" * (family.type == "counter") for family in families]
    labels = [{name for sample in family.samples for name in sample.labels} - {"le"} for family in families]
    rows = table(HUB, "metric", "labels", "counts")
    assert {codes(row[0])[0]: set(codes(row[1])) for row in rows} == dict(zip(names, labels, strict=True))


def test_every_file_of_the_hub_is_named() -> None:
    config = HubConfig(data_dir=Path("/data"))
    database = Path(config.database.removeprefix("sqlite+aiosqlite:///"))
    files = {config.key_file, database, config.spool_dir, config.journal_dir}
    named = {
        Path("/data", path.removeprefix("<data_dir>/")) for path in re.findall(r"`(<data_dir>/\S+)`", HUB)
    }
    assert files <= named


def test_the_line_of_the_log_is_written_as_shown() -> None:
    record = logging.makeLogRecord(
        {
            "name": "hub.node_keeping",
            "levelname": "INFO",
            "msg": "node revoked",
            "created": 1769860800.123,
            "msecs": 123.0,
            "event": "node.revoked",
            "node_id": "node_kq3m5x7zt2vw4y6abcde",
        }
    )
    assert f"\n{LineFormatter().format(record)}\n" in HUB


# --- docs/portal.md


def routes(router: object) -> Iterator[tuple[str, str]]:
    """Method and path of every route, those of included routers too."""
    for route in router.routes:
        if hasattr(route, "original_router"):
            yield from routes(route.original_router)
        else:
            yield from ((method, route.path) for method in route.methods)


def test_every_page_of_the_portal_is_listed() -> None:
    served = list(routes(views.router))
    listed = first_codes(table(PORTAL, "address", "shows"))
    assert sorted(listed) == sorted(path for method, path in served if method == "GET")
    posted = {path for method, path in served if method == "POST"}
    apart = posted - set(listed)
    assert apart == {
        "/logout",
        "/nodes/{node_id}/models",
        "/playground/{key_id}/chat",
        "/playground/verdict",
        "/account/password",
        "/account/second-step/codes",
        "/account/second-step/confirm",
        "/account/second-step/off",
        "/account/sessions/end-others",
        "/account/single-sign-on",
        "/account/single-sign-on/disconnect",
        "/account/sessions/{reference}/end",
        "/nodes/{node_id}/drain",
        "/nodes/{node_id}/resume",
        "/members/invitations/{invitation_id}/withdraw",
        "/members/{account_id}/reset-second-step",
        "/members/{account_id}/sign-out",
    }
    assert all(f"`{path}`" in PORTAL for path in apart)


def test_what_a_role_may_do_is_what_the_portal_allows() -> None:
    header = ("may", *(f"`{role.value}`" for role in Role))
    may = {row[0]: [cell == "yes" for cell in row[1:]] for row in table(PORTAL, *header)}
    assert may == {act.value: [permissions.may(role, act) for role in Role] for act in Act}
    people = [Account("acct_a", "org_a", "a@b.example", "", role, 0.0) for role in Role]
    changes = [Visitor(person, Organisation("org_a", "A", 0.0), "").may_change for person in people]
    assert changes == may[Act.CHANGE_NODES] == may[Act.CHANGE_KEYS] == may[Act.APPROVE_NODES]
    assert [person.role.may_audit for person in people] == may[Act.READ_AUDIT]
    assert [person.role.may_ask for person in people] == may[Act.ASK]
    assert [person.is_operator for person in people] == may[Act.SET_TRUST] == may[Act.ALL_NODES]


def test_which_roles_are_given_by_whom_is_written() -> None:
    rows = {row[0]: set(codes(row[1])) for row in table(PORTAL, "role", "may give")}
    assert rows == {f"`{role}`": set(permissions.grantable(role)) for role in Role}


# --- docs/admin.md


def test_every_address_of_the_administrative_api_is_listed() -> None:
    document = msgspec.json.decode(admin_views._document())
    served = {
        f"{method.upper()} {path}"
        for path, methods in document["paths"].items()
        for method in methods
        if path.startswith("/admin/")
    }
    listed = first_codes(table(ADMIN, "address", "does"))
    assert len(listed) == len(set(listed))
    assert set(listed) == served


def test_every_error_of_the_administrative_api_is_listed() -> None:
    rows = table(ADMIN, "code", "status", "type", "when")
    assert [(codes(row[0])[0], int(row[1]), codes(row[2])[0]) for row in rows] == [
        (code, kind.status, kind.type) for code, kind in ADMIN_ERRORS.items()
    ]


def test_what_a_role_may_do_is_what_a_token_allows() -> None:
    header = ("may", *(f"`{role.value}`" for role in Role))
    may = [[cell == "yes" for cell in row[1:]] for row in table(ADMIN, *header)]
    roles = list(Role)
    assert may == [
        [True] * len(roles),
        [role.may_audit for role in roles],
        [role.may_manage for role in roles],
        [role.may_grant(Role.OWNER) for role in roles],
        [role is Role.OPERATOR for role in roles],
    ]


# --- docs/evidence.md


def test_every_finding_of_a_check_is_explained() -> None:
    assert first_codes(table(EVIDENCE, "finding", "means")) == [problem.value for problem in Problem]


def test_every_claim_of_a_receipt_is_explained() -> None:
    claims = [name for row in table(EVIDENCE, "claim", "means") for name in codes(row[0])]
    assert claims == list(Receipt.__struct_fields__)


def test_the_policys_document_is_the_one_shown() -> None:
    policy = rule.Policy("org_…", regions=frozenset({"eu"}))
    assert f"\n{policy_document(policy, None)}\n" in EVIDENCE


def test_every_field_of_a_checkpoint_is_named() -> None:
    assert [each.name for each in fields(Checkpoint) if f"`{each.name}`" not in EVIDENCE] == []


# --- docs/portal.md, again


def test_every_header_of_a_page_is_named() -> None:
    assert [name for name in security.PAGE_HEADERS if f"`{name}" not in PORTAL] == []


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


@pytest.mark.parametrize(("page", "phrase"), [(page, each) for page in NUMBERS for each in NUMBERS[page]])
def test_a_number_is_the_one_in_the_code(page: str, phrase: str) -> None:
    assert phrase in " ".join((DOCS / f"{page}.md").read_text().split())
