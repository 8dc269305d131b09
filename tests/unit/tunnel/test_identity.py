from dataclasses import asdict, replace

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from tunnel.errors import CredentialInvalid, TicketRefused
from tunnel.identity import (
    NodeCredential,
    Ticket,
    TicketIssuer,
    TicketVerifier,
    decode_public_key,
    encode_public_key,
    hello_transcript,
    issue_credential,
    read_credential,
    sign_hello,
    verify_hello,
)

HUB = Ed25519PrivateKey.from_private_bytes(bytes(32))
OTHER = Ed25519PrivateKey.from_private_bytes(bytes(31) + b"\x01")
NOW = 1_800_000_000.0
CREDENTIAL = NodeCredential(
    node_id="node_a",
    owner_id="org_a",
    region="eu-de",
    trust="trusted",
    sharing="public",
    hub_id="hub_a",
    public_key=encode_public_key(OTHER.public_key()),
    issued_at=int(NOW),
)
TICKET = Ticket(
    node_id="node_a",
    owner_id="org_a",
    region="eu-de",
    organisation_id="org_b",
    model="m",
    request_id="req_a",
    generation=7,
    issued_at=int(NOW),
    expires_at=int(NOW) + 60,
)


def verifier(**changes: object) -> TicketVerifier:
    return TicketVerifier(replace(CREDENTIAL, **changes), HUB.public_key())


def verify(
    ticket: Ticket, by: TicketVerifier | None = None, *, now: float = NOW, key: Ed25519PrivateKey = HUB
) -> Ticket:
    token = TicketIssuer(key).issue(ticket)
    return (by or verifier()).verify(token, now=now, request_id="req_a", generation=7)


def test_public_keys_round_trip() -> None:
    key = HUB.public_key()
    assert decode_public_key(encode_public_key(key)).public_bytes_raw() == key.public_bytes_raw()
    assert "=" not in encode_public_key(key)


@given(st.text(max_size=60))
def test_other_texts_are_no_public_keys(text: str) -> None:
    try:
        decode_public_key(text)
    except CredentialInvalid:
        pass
    else:
        assert len(text.rstrip("=")) == 43


def test_a_credential_round_trips() -> None:
    assert read_credential(issue_credential(HUB, CREDENTIAL), HUB.public_key()) == CREDENTIAL


def test_a_credential_of_another_hub_or_kind_is_invalid() -> None:
    with pytest.raises(CredentialInvalid):
        read_credential(issue_credential(OTHER, CREDENTIAL), HUB.public_key())
    with pytest.raises(CredentialInvalid):
        read_credential(TicketIssuer(HUB).issue(TICKET), HUB.public_key())
    with pytest.raises(CredentialInvalid):
        read_credential("not.a.token", HUB.public_key())
    incomplete = jwt.encode({"node_id": "n"}, HUB, algorithm="EdDSA", headers={"typ": "porten-node+jwt"})
    with pytest.raises(CredentialInvalid):
        read_credential(incomplete, HUB.public_key())


def test_claims_of_the_wrong_type_are_invalid() -> None:
    claims = {**asdict(CREDENTIAL), "node_id": 5}
    token = jwt.encode(claims, HUB, algorithm="EdDSA", headers={"typ": "porten-node+jwt"})
    with pytest.raises(CredentialInvalid):
        read_credential(token, HUB.public_key())


def test_a_ticket_for_this_node_and_request_is_accepted_once() -> None:
    by = verifier()
    assert verify(TICKET, by) == TICKET
    with pytest.raises(TicketRefused, match="replay"):
        verify(TICKET, by)


@pytest.mark.parametrize(
    ("gate", "changes"),
    [
        ("node", {"node_id": "node_b"}),
        ("owner", {"owner_id": "org_b"}),
        ("region", {"region": "eu"}),
        ("region", {"region": None}),
        ("request", {"request_id": "req_b"}),
        ("generation", {"generation": 6}),
        ("expired", {"expires_at": int(NOW) - 31}),
        ("expired", {"issued_at": int(NOW) + 31}),
    ],
)
def test_each_gate_refuses(gate: str, changes: dict[str, object]) -> None:
    with pytest.raises(TicketRefused) as caught:
        verify(replace(TICKET, **changes))
    assert caught.value.gate == gate


def test_a_forged_ticket_is_refused() -> None:
    with pytest.raises(TicketRefused, match="signature"):
        verify(TICKET, key=OTHER)
    with pytest.raises(TicketRefused, match="signature"):
        verifier().verify(issue_credential(HUB, CREDENTIAL), now=NOW, request_id="req_a", generation=7)


def test_a_ticket_signed_with_no_algorithm_is_refused() -> None:
    unsigned = jwt.encode({}, "", algorithm="none", headers={"typ": "porten-ticket+jwt"})
    with pytest.raises(TicketRefused, match="signature"):
        verifier().verify(unsigned, now=NOW, request_id="req_a", generation=7)


def test_a_private_node_serves_its_owner_only() -> None:
    with pytest.raises(TicketRefused, match="sharing"):
        verify(TICKET, verifier(sharing="private"))
    verify(replace(TICKET, organisation_id="org_a"), verifier(sharing="private"))


def test_a_refused_ticket_is_not_spent() -> None:
    by = verifier()
    with pytest.raises(TicketRefused):
        by.verify(TicketIssuer(HUB).issue(TICKET), now=NOW, request_id="req_a", generation=8)
    verify(TICKET, by)


def test_a_renewed_credential_counts_and_what_was_seen_stays_seen() -> None:
    by = verifier()
    verify(TICKET, by)
    by.renew(replace(CREDENTIAL, region="eu-fr", public_key=encode_public_key(HUB.public_key())))
    with pytest.raises(TicketRefused, match="region"):
        verify(TICKET, by)
    with pytest.raises(TicketRefused, match="replay"):
        verify(replace(TICKET, region="eu-fr"), by)


@given(
    st.fixed_dictionaries(
        {
            "nonce": st.binary(max_size=40),
            "hub_host": st.text(max_size=20),
            "node_id": st.text(max_size=20),
            "instance_id": st.text(max_size=20),
            "hello": st.binary(max_size=32),
        }
    ),
    st.sampled_from(["nonce", "hub_host", "node_id", "instance_id", "hello"]),
)
def test_a_hello_verifies_and_any_change_breaks_it(parts: dict, changed: str) -> None:
    signature = sign_hello(OTHER, **parts)
    keys = (HUB.public_key(), OTHER.public_key())  # two active keys during rotation
    assert verify_hello(keys, signature, **parts) is keys[1]
    assert not verify_hello(keys[:1], signature, **parts)
    assert not verify_hello((), signature, **parts)
    more = b"x" if isinstance(parts[changed], bytes) else "x"
    assert not verify_hello(keys, signature, **{**parts, changed: parts[changed] + more})


def test_parts_cannot_slide_into_each_other() -> None:
    assert hello_transcript(b"n", "host", "ab", "c", b"d") != hello_transcript(b"n", "host", "a", "bc", b"d")
