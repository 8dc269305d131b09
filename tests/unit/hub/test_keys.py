"""The format of keys: typos are caught without a database, and nothing but the hash is kept."""

import string
from hashlib import sha256

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hub.errors import InvalidInput
from hub.identifiers import checked_name, new_id
from hub.keys import API_KEY_PREFIX, JOIN_TOKEN_PREFIX, hash_secret, looks_valid, mint


def test_a_minted_key_has_its_form_and_shows_only_its_beginning():
    minted = mint()
    assert minted.secret.startswith(API_KEY_PREFIX)
    assert len(minted.secret) == len(API_KEY_PREFIX) + 38
    assert minted.prefix == minted.secret[:16]
    assert minted.hash == sha256(minted.secret.encode()).hexdigest() == hash_secret(minted.secret)
    assert minted.secret not in repr(minted)


def test_keys_differ():
    assert len({mint().secret for _ in range(500)}) == 500


CHARACTERS = string.ascii_letters + string.digits + "-"


@settings(max_examples=300)
@given(
    st.integers(0, len(API_KEY_PREFIX) + 38 - 1),
    st.integers(1, len(CHARACTERS) - 1),
)
def test_one_changed_character_is_caught(place, away):
    secret = mint().secret
    other = CHARACTERS[(CHARACTERS.index(secret[place]) + away) % len(CHARACTERS)]
    assert not looks_valid(secret[:place] + other + secret[place + 1 :])


@given(st.text(max_size=60))
def test_any_text_is_looked_at_without_harm(text):
    assert looks_valid(text) is False
    assert not looks_valid(API_KEY_PREFIX + text)


def test_a_join_token_is_no_key():
    token = mint(JOIN_TOKEN_PREFIX).secret
    assert looks_valid(token, JOIN_TOKEN_PREFIX)
    assert not looks_valid(token)
    assert not looks_valid(mint().secret, JOIN_TOKEN_PREFIX)


def test_identifiers_say_their_kind_and_differ():
    made = {new_id("node") for _ in range(1_000)}
    assert len(made) == 1_000
    assert all(len(name) == 25 and name.startswith("node_") and name == name.lower() for name in made)


@pytest.mark.parametrize("name", ["", "   ", "x" * 101, "two\nlines", "bell\a"])
def test_names_that_cannot_be_shown_are_refused(name):
    with pytest.raises(InvalidInput) as refused:
        checked_name(name, "title")
    assert refused.value.field == "title"


def test_names_are_stripped_and_may_be_in_any_language():
    assert checked_name("  Büro 東京 ") == "Büro 東京"
