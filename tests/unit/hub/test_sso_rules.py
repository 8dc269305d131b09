"""What an identity provider's claims are worth: rules, subjects, addresses. What is odd counts as absent."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hub.permissions import Role
from hub.sso_rules import Rule, first_match, parse_rule, subject_of, verified_email

ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=8,
)
STAFF = Rule("staff", "Lab", Role.MEMBER)


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("staff=Lab:member", STAFF),
        (" staff = Lab : member ", STAFF),
        ("*=Lab:auditor", Rule("*", "Lab", Role.AUDITOR)),
        ("cn=admins,ou=llm=Lab: West:owner", Rule("cn=admins,ou=llm", "Lab: West", Role.OWNER)),
        ("urn:x:y=Lab:admin", Rule("urn:x:y", "Lab", Role.ADMIN)),
    ],
)
def test_a_rule_is_read(text, rule):
    assert parse_rule(text) == rule


@pytest.mark.parametrize(
    "text",
    ["", "staff", "staff=Lab", "Lab:member", "=Lab:member", "staff=:member", "staff=Lab:", "staff=Lab:king"],
)
def test_what_is_no_rule_is_said_to_be_none(text):
    with pytest.raises(ValueError, match=r"is not"):
        parse_rule(text)


def test_no_rule_makes_an_operator():
    with pytest.raises(ValueError, match=r"'operator' .* is not one of owner, admin, member, auditor"):
        parse_rule("staff=Lab:operator")


@given(ANYTHING)
def test_a_rule_fits_its_own_value_alone(claim):
    names = claim if isinstance(claim, list) else [claim]
    fits = any(name == "staff" for name in names if isinstance(name, str))
    assert first_match([STAFF], claim) == (STAFF if fits else None)
    assert first_match([], claim) is None


def test_the_first_rule_that_fits_counts_and_the_star_fits_all():
    rules = [Rule("chiefs", "Lab", Role.OWNER), STAFF, Rule("*", "Guests", Role.AUDITOR)]
    assert first_match(rules, ["staff", "chiefs"]).role is Role.OWNER
    assert first_match(rules, "staff") is STAFF
    assert first_match(rules, None).organisation == "Guests"
    assert first_match([Rule("sta", "Lab", Role.OWNER)], "staff") is None


@given(ANYTHING)
def test_a_subject_is_text_of_the_length_that_the_standard_allows(claim):
    fits = isinstance(claim, str) and 0 < len(claim) <= 255 and claim.isprintable()
    assert subject_of({"sub": claim}) == (claim if fits else None)


@given(ANYTHING, ANYTHING)
def test_an_address_counts_only_where_it_was_verified(email, verified):
    found = verified_email({"email": email, "email_verified": verified}, [])
    if found is not None:
        assert verified is True
        assert found == email.strip().lower()
        assert found.count("@") == 1


@pytest.mark.parametrize(
    ("email", "allowed"),
    [
        ("ada@lab.example", True),
        (" ADA@LAB.example ", True),
        ("ada@sub.lab.example", False),
        ("ada@evillab.example", False),
        ("ada@lab.example.evil.example", False),
        ("ada@evil.example@lab.example", False),
        ("@lab.example", False),
        ("a\nda@lab.example", False),
        ("ada@lab.example\u200b", False),
    ],
)
def test_a_domain_is_the_whole_of_what_follows_the_at(email, allowed):
    found = verified_email({"email": email, "email_verified": True}, ["Lab.example"])
    assert found == ("ada@lab.example" if allowed else None)
