"""Places in the audit log as they are told: the same for the same place, and nothing of the number."""

import re

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from hub.log_places import PLACE, LogPlaces

PLACES = LogPlaces(Ed25519PrivateKey.generate())


@given(st.integers(0, 2**63 - 1))
def test_what_was_sealed_is_opened_by_the_same_hub_alone(sequence):
    told = PLACES.seal(sequence)
    assert re.fullmatch(PLACE, told)
    assert PLACES.open(told) == sequence
    assert PLACES.seal(sequence) == told
    assert LogPlaces(Ed25519PrivateKey.generate()).open(told) is None


def test_neighbours_are_not_seen_to_be():
    told = [PLACES.seal(sequence) for sequence in range(1, 500)]
    assert len(set(told)) == len(told)
    assert told != sorted(told)
    assert len({each[:4] for each in told}) > 490


@given(st.text())
def test_any_other_text_is_no_place(text):
    assert PLACES.open(text) is None
