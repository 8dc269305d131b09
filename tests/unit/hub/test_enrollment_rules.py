"""Codes, the rule of who decides what about a node, and what nodes sign themselves."""

from dataclasses import replace
from pathlib import Path

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given, settings
from hypothesis import strategies as st

from hub.errors import InvalidInput, NotAllowed, Outdated, SignatureRefused
from hub.node_keeping import NEXT_KEY_LIFETIME_S
from hub.placement import Placement, check_seen, decide, require_manager, rules_seen
from hub.policy import PRIVATE, RegionAuthority, RegionTree, Sharing, SharingKind, TrustClass
from hub.signed_requests import LIFETIME_S, Asked, claimed_node, verify
from hub.storage.records import Account, Node, Role
from hub.user_codes import ALPHABET, CodeHasher, draw_device_code, draw_user_code, read_user_code

SPEC = (Path(__file__).parents[3] / "tunnel" / "SPEC.md").read_text(encoding="utf-8")
NOW = 1_700_000_000.0
TREE = RegionTree({"eu": None, "eu-de": "eu"})
NODE = Node("node_1", "org_a", "box", "", "eu-de", True, TrustClass.TRUSTED, PRIVATE, {}, 0, NOW)


def account(role):
    return Account("acct_1", "org_a", "a@b.c", "hash", role, NOW)


def wish(**changes):
    base = Placement("box", "eu-de", region_confirmed=False, trust=TrustClass.TRUSTED, sharing=PRIVATE)
    return replace(base, **changes)


def decided(role, asked, node=NODE):
    return decide(account(role), asked, node=node, regions=TREE, organisations={"org_a", "org_b"})


def test_user_codes_are_unambiguous_and_read_however_typed():
    code = draw_user_code()
    assert len(code) == 9
    assert set(code) - {"-"} <= set(ALPHABET)
    letters = code.replace("-", "")
    for typed in (code, code.lower(), letters, f" {letters[:2]} {letters[2:].lower()} "):
        assert read_user_code(typed) == letters


@given(st.text(max_size=12))
def test_what_is_no_code_is_not_read_as_one(text):
    code = read_user_code(text)
    assert code is None or (len(code) == 8 and set(code) <= set(ALPHABET))


def test_code_hashes_are_of_this_hub():
    key = Ed25519PrivateKey.generate()
    assert CodeHasher(key).hash("BCDFGHJK") == CodeHasher(key).hash("BCDFGHJK")
    assert CodeHasher(key).hash("BCDFGHJK") != CodeHasher(Ed25519PrivateKey.generate()).hash("BCDFGHJK")
    assert len(draw_device_code()) >= 43


def test_an_operators_region_is_confirmed_and_an_owners_is_not():
    assert decided(Role.OPERATOR, wish(region="eu")).region_confirmed
    assert not decided(Role.OWNER, wish(region="eu")).region_confirmed
    assert not decided(Role.OPERATOR, wish(region=None)).region_confirmed


def test_a_confirmed_region_stays_so_while_it_is_not_changed():
    assert decided(Role.OWNER, wish(name="renamed")).region_confirmed
    assert not decided(Role.OWNER, wish(), node=replace(NODE, region_confirmed=False)).region_confirmed


@settings(max_examples=200)
@given(
    st.sampled_from([Role.OWNER, Role.ADMIN, Role.MEMBER]),
    st.sampled_from([None, "eu", "eu-de"]),
    st.sampled_from([None, NODE, replace(NODE, region_confirmed=False), replace(NODE, region="eu")]),
)
def test_nobody_but_an_operator_ever_confirms_a_region(role, region, node):
    trust = TrustClass.COMMUNITY if node is None else TrustClass.TRUSTED
    result = decided(role, wish(region=region, trust=trust), node)
    if result.region_confirmed:
        assert node is not None
        assert (node.region, node.region_confirmed) == (region, True)


@pytest.mark.parametrize("trust", [TrustClass.COMMUNITY, TrustClass.CONFIDENTIAL])
def test_only_an_operator_sets_the_trust_class(trust):
    assert decided(Role.OPERATOR, wish(trust=trust)).trust is trust
    with pytest.raises(InvalidInput) as refused:
        decided(Role.OWNER, wish(trust=trust))
    assert refused.value.field == "trust"


@pytest.mark.parametrize(
    ("field", "asked"),
    [
        ("region", wish(region="atlantis")),
        ("name", wish(name="x" * 101)),
        ("organisations", wish(sharing=Sharing(SharingKind.ORGANISATIONS))),
        ("organisations", wish(sharing=Sharing(SharingKind.ORGANISATIONS, frozenset({"org_x"})))),
    ],
)
def test_what_cannot_be_accepted_names_its_field(field, asked):
    with pytest.raises(InvalidInput) as refused:
        decided(Role.OPERATOR, asked)
    assert refused.value.field == field


def test_organisations_count_only_with_their_kind():
    asked = wish(sharing=Sharing(SharingKind.PRIVATE, frozenset({"org_b"})))
    assert decided(Role.OWNER, asked).sharing == PRIVATE


def test_members_and_auditors_may_not_manage_nodes():
    for role in (Role.OPERATOR, Role.OWNER, Role.ADMIN):
        require_manager(account(role))
    for role in (Role.MEMBER, Role.AUDITOR):
        with pytest.raises(NotAllowed):
            require_manager(account(role))


def test_an_unconfirmed_region_counts_only_where_owners_are_the_authority():
    node = replace(NODE, region_confirmed=False)
    assert not node.facts().region_confirmed
    assert not node.facts(RegionAuthority.OPERATOR).region_confirmed
    assert node.facts(RegionAuthority.OWNER).region_confirmed


KEY = Ed25519PrivateKey.generate()
CLAIMS = {"sub": "node_1", "aud": "hub_1", "iat": NOW, "exp": NOW + 60}


def leave(key=KEY, typ=Asked.LEAVE.value, **claims):
    body = {name: value for name, value in {**CLAIMS, **claims}.items() if value is not None}
    return jwt.encode(body, key, algorithm="EdDSA", headers={"typ": typ})


@pytest.mark.parametrize("asked", Asked)
def test_a_nodes_own_request_is_accepted_for_what_it_is(asked):
    token = leave(typ=asked.value, public_key="next")
    assert claimed_node(token, asked) == "node_1"
    claims = verify(token, KEY.public_key(), hub_id="hub_1", now=NOW + 1)
    assert (claims["sub"], claims["public_key"]) == ("node_1", "next")
    for other in set(Asked) - {asked}:
        with pytest.raises(SignatureRefused):
            claimed_node(token, other)


@pytest.mark.parametrize(
    ("token", "now"),
    [
        (leave(key=Ed25519PrivateKey.generate()), NOW),
        (leave(aud="hub_2"), NOW),
        (leave(), NOW + 91),
        (leave(), NOW - 31),
        (leave(exp=NOW + 3600), NOW),
        (leave(exp=None), NOW),
        (leave(iat=None), NOW),
        (leave(aud=None), NOW),
    ],
)
def test_any_other_is_refused(token, now):
    with pytest.raises(SignatureRefused):
        verify(token, KEY.public_key(), hub_id="hub_1", now=now)


@pytest.mark.parametrize("token", ["", "a.b.c", "x", leave(typ="porten-node+jwt"), "é.é.é"])
def test_what_is_no_leave_request_is_refused(token):
    with pytest.raises(SignatureRefused):
        claimed_node(token, Asked.LEAVE)


def test_the_specification_says_how_a_node_changes_its_key() -> None:
    said = " ".join(SPEC.partition("### Changing the key")[2].partition("## 5.")[0].split())
    assert f"type `{Asked.ROTATE.value}`" in said
    assert f"(at most {LIFETIME_S} s apart)" in said
    assert f"the next one for {NEXT_KEY_LIFETIME_S:g} s" in said


SHARINGS = st.builds(
    Sharing, st.sampled_from(SharingKind), st.frozensets(st.sampled_from(["org_b", "org_c"]), max_size=2)
)
RULES = st.fixed_dictionaries(
    {
        "region": st.sampled_from([None, "eu", "eu-de"]),
        "trust": st.sampled_from([None, *TrustClass]),
        "sharing": st.none() | SHARINGS,
    }
)
OTHER = st.fixed_dictionaries(
    {"name": st.sampled_from(["box", "rack"]), "draining_since": st.sampled_from([None, NOW])}
)


@given(RULES, RULES, OTHER)
def test_what_was_seen_is_told_from_any_other_rules_and_from_nothing_else(before, after, other):
    one, now = replace(NODE, **before), replace(NODE, **after, **other)
    assert (rules_seen(one) == rules_seen(now)) is (before == after)
    if before == after:
        check_seen(now, rules_seen(one))
    else:
        with pytest.raises(Outdated):
            check_seen(now, rules_seen(one))
    check_seen(now, None)
