"""A receipt says what its node signed, of a node that the Hub vouches for, or it is none."""

import base64
import json
from dataclasses import asdict, replace

import jwt
import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from tunnel.errors import ReceiptInvalid
from tunnel.identity import NodeCredential, encode_public_key, issue_credential
from tunnel.receipts import RECEIPT_TYPE, Receipt, ReceiptReader, ReceiptSigner

HUB, NODE, OTHER = (Ed25519PrivateKey.generate() for _ in range(3))
CREDENTIAL = NodeCredential(
    node_id="node_a",
    owner_id="org_a",
    region="eu-de",
    trust="verified",
    sharing="private",
    hub_id="hub_a",
    public_key=encode_public_key(NODE.public_key()),
    issued_at=1,
)
RECEIPT = Receipt(
    request_id="req_a",
    key_id="key_a",
    policy_hash="v1:00",
    node_id="node_a",
    owner_id="org_a",
    region="eu-de",
    model="tiny",
    model_digest="sha256:feed",
    issued_at=1_700_000_000,
)


def signer(key=NODE, hub=HUB, **changes):
    credential = replace(CREDENTIAL, public_key=encode_public_key(key.public_key()), **changes)
    return ReceiptSigner(key, credential, issue_credential(hub, credential))


def reader(*keys):
    return ReceiptReader(*(key.public_key() for key in keys or (HUB,)))


TOKEN = signer().sign(RECEIPT)


def test_what_was_signed_is_read_with_the_hubs_key_alone():
    found = reader().read(TOKEN)
    assert found.receipt == RECEIPT
    assert found.credential == CREDENTIAL


def test_it_is_a_compact_jws_that_any_library_verifies():
    decoded = jwt.decode_complete(TOKEN, NODE.public_key(), algorithms=["EdDSA"])
    assert decoded["header"]["typ"] == RECEIPT_TYPE
    assert decoded["payload"] == msgspec.to_builtins(RECEIPT)


@given(at=st.integers(0, len(TOKEN) - 1), character=st.characters(max_codepoint=0x2FF))
def test_no_character_of_it_can_be_another(at, character):
    changed = TOKEN[:at] + character + TOKEN[at + 1 :]
    if changed != TOKEN:
        with pytest.raises(ReceiptInvalid):
            reader().read(changed)


@given(text=st.one_of(st.text(max_size=300), st.from_regex(r"[\w-]+\.[\w-]+\.[\w-]+", fullmatch=True)))
def test_whatever_else_comes_is_refused(text):
    with pytest.raises(ReceiptInvalid):
        reader().read(text)


@pytest.mark.parametrize("claim", ["node_id", "owner_id", "region"])
def test_a_node_speaks_for_nobody_but_itself(claim):
    lie = signer().sign(msgspec.structs.replace(RECEIPT, **{claim: "another"}))
    with pytest.raises(ReceiptInvalid, match="than the Hub vouches for"):
        reader().read(lie)


def test_a_node_that_no_trusted_hub_vouches_for_proves_nothing():
    with pytest.raises(ReceiptInvalid, match="no Hub"):
        reader(OTHER).read(TOKEN)
    assert reader(OTHER, HUB).read(TOKEN).hub_key.public_bytes_raw() == HUB.public_key().public_bytes_raw()


def test_another_nodes_credential_is_of_no_use():
    stolen = issue_credential(HUB, CREDENTIAL)
    with pytest.raises(ReceiptInvalid, match="did not sign"):
        reader().read(ReceiptSigner(OTHER, CREDENTIAL, stolen).sign(RECEIPT))


def test_receipts_of_before_and_after_a_change_of_key_hold():
    same = reader()
    for key in (NODE, OTHER, NODE):
        assert same.read(signer(key).sign(RECEIPT)).receipt == RECEIPT


@pytest.mark.parametrize(
    "header",
    [
        {"alg": "none"},
        {"alg": "HS256"},
        {"typ": "JWT"},
        {"typ": "porten-ticket+jwt"},
        {"crit": ["exp"]},
        {"credential": None},
        {"credential": ""},
    ],
)
def test_a_header_of_another_kind_is_refused(header):
    head = {"alg": "EdDSA", "typ": RECEIPT_TYPE, "credential": issue_credential(HUB, CREDENTIAL)} | header
    signed = ".".join(encode(json.dumps(part).encode()) for part in (head, msgspec.to_builtins(RECEIPT)))
    with pytest.raises(ReceiptInvalid):
        reader().read(f"{signed}.{encode(NODE.sign(signed.encode()))}")


def test_the_signature_over_something_else_is_no_receipt():
    credential = issue_credential(HUB, CREDENTIAL)
    headers = {"typ": RECEIPT_TYPE, "credential": credential}
    for payload in (asdict(CREDENTIAL), {}, {"request_id": 1}):
        with pytest.raises(ReceiptInvalid, match="no receipt"):
            reader().read(jwt.encode(payload, NODE, algorithm="EdDSA", headers=headers))


def test_what_is_remembered_is_bounded(monkeypatch):
    monkeypatch.setattr("tunnel.receipts._MAX_HEADS", 3)
    found = reader()
    for number in range(10):
        token = signer(node_id=f"node_{number}").sign(
            msgspec.structs.replace(RECEIPT, node_id=f"node_{number}")
        )
        assert found.read(token).receipt.node_id == f"node_{number}"
        assert len(found._vouchers) <= 3


def encode(data):
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
