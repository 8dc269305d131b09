"""docs/policy.md says what is so."""

from dataclasses import replace

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from hub import policy as rule
from hub import (
    refusals,
)
from hub.api.request import Headers, wishes
from hub.config import HubConfig
from hub.default_regions import DEFAULT_REGIONS
from hub.router import Reason, Refusal, RefusalCode
from tests.unit.hub.docs.pages import codes, first_codes, page, table
from tunnel.errors import TicketRefused
from tunnel.identity import NodeCredential, Ticket, TicketIssuer, TicketVerifier

POLICY = page("policy")
TREE = rule.RegionTree({region.code: region.parent for region in DEFAULT_REGIONS})


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
