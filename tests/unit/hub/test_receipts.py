"""A policy has one name, and the Hub passes on no receipt that says other than it knows."""

import json
from dataclasses import replace
from hashlib import sha256

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from hub.policy import Fleet, Policy, TrustClass
from hub.receipts import CLOCK_TOLERANCE_S, ReceiptCheck, policy_document, policy_hash
from tunnel.errors import ReceiptInvalid
from tunnel.identity import NodeCredential, Ticket, encode_public_key, issue_credential
from tunnel.messages import Head
from tunnel.receipts import FEATURE, RECEIPT_HEADER, Receipt, ReceiptSigner

NOW = 1_700_000_000
HUB, NODE = Ed25519PrivateKey.generate(), Ed25519PrivateKey.generate()
CREDENTIAL = NodeCredential(
    node_id="node_a",
    owner_id="org_a",
    region=None,
    trust="verified",
    sharing="private",
    hub_id="hub_a",
    public_key=encode_public_key(NODE.public_key()),
    issued_at=1,
)
TICKET = Ticket(
    node_id="node_a",
    owner_id="org_a",
    region=None,
    organisation_id="org_a",
    model="tiny",
    request_id="req_a",
    generation=1,
    issued_at=NOW,
    expires_at=NOW + 60,
    key_id="key_a",
    policy_hash="v1:00",
)
RECEIPT = Receipt(
    request_id="req_a",
    key_id="key_a",
    policy_hash="v1:00",
    node_id="node_a",
    owner_id="org_a",
    region=None,
    model="tiny",
    model_digest="sha256:feed",
    issued_at=NOW,
)

# --- the name of a policy

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
policies = st.builds(
    Policy, texts.filter(bool), st.sampled_from(Fleet), st.frozensets(texts), st.sampled_from(TrustClass)
)
rules = st.tuples(policies, st.none() | st.frozensets(texts))


def test_the_documented_example():
    policy = Policy("org_a", Fleet.SHARED, frozenset({"eu-fr", "eu-de"}), TrustClass.VERIFIED)
    document = policy_document(policy, {"tiny"})
    assert document == (
        '{"fleet":"shared","minimum_trust":"verified","models":["tiny"],"organisation":"org_a",'
        '"regions":["eu-de","eu-fr"],"version":1}'
    )
    assert policy_hash(policy, {"tiny"}) == f"v1:{sha256(document.encode()).hexdigest()}"


@given(rules, rules)
def test_equal_rules_have_equal_names_and_others_have_others(one, other):
    assert (policy_hash(*one) == policy_hash(*other)) == (one == other)


@given(rules)
def test_the_document_says_what_is_judged(one):
    policy, models = one
    read = json.loads(policy_document(policy, models))
    assert read["models"] == (None if models is None else sorted(models))
    assert read["regions"] == sorted(policy.regions)
    assert (read["organisation"], read["fleet"]) == (policy.organisation_id, policy.fleet.value)
    assert TrustClass.parse(read["minimum_trust"]) is policy.minimum_trust


def test_rules_that_cannot_be_read_have_no_name():
    assert policy_hash(None, None) == ""


# --- what is passed on


def head(receipt=RECEIPT, key=NODE, hub=HUB, digest="sha256:feed"):
    token = ReceiptSigner(key, CREDENTIAL, issue_credential(hub, CREDENTIAL)).sign(receipt)
    digests = (("x-porten-model-digest", digest),) if digest else ()
    return Head(status=200, headers=(*digests, (RECEIPT_HEADER, token)))


def receipt_of(said, features=(FEATURE,), now=NOW, ticket=TICKET):
    return ReceiptCheck(HUB.public_key()).receipt_of(said, ticket, features, now)


def test_a_true_receipt_is_passed_on_as_it_came():
    assert receipt_of(head()) == dict(head().headers)[RECEIPT_HEADER]


def test_weights_that_are_not_told_are_not_told_in_the_receipt():
    assert receipt_of(head(msgspec.structs.replace(RECEIPT, model_digest=None), digest=None))


def test_a_node_of_an_older_version_sends_none():
    assert receipt_of(Head(status=200, headers=()), features=()) is None


def test_a_node_that_sends_receipts_leaves_none_out():
    with pytest.raises(ReceiptInvalid, match="missing"):
        receipt_of(Head(status=200, headers=()))


@pytest.mark.parametrize("claim", [name for name in Receipt.__struct_fields__ if name != "issued_at"])
def test_a_lie_about_anything_refuses(claim):
    with pytest.raises(ReceiptInvalid):
        receipt_of(head(msgspec.structs.replace(RECEIPT, **{claim: "another"})))


@pytest.mark.parametrize("features", [(), (FEATURE,)])
def test_one_that_does_not_verify_refuses_whoever_sent_it(features):
    stranger = Ed25519PrivateKey.generate()
    for forged in (head(key=stranger), head(hub=stranger)):
        with pytest.raises(ReceiptInvalid):
            receipt_of(forged, features=features)


@pytest.mark.parametrize("field", ["request_id", "key_id", "policy_hash", "model"])
def test_a_receipt_for_another_request_refuses(field):
    with pytest.raises(ReceiptInvalid, match="than the Hub knows"):
        receipt_of(head(), ticket=replace(TICKET, **{field: "another"}))


def test_a_receipt_of_another_time_refuses():
    assert receipt_of(head(), now=NOW + CLOCK_TOLERANCE_S)
    for now in (NOW + CLOCK_TOLERANCE_S + 1, NOW - CLOCK_TOLERANCE_S - 1):
        with pytest.raises(ReceiptInvalid, match="time"):
            receipt_of(head(), now=now)
