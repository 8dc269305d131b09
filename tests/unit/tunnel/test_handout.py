"""The Hub's word on its program: read only if its key signed it, and only if it names a wheel."""

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from tunnel import jws
from tunnel.errors import HandoutInvalid
from tunnel.handout import HANDOUT_TYPE, Handout, read_handout, sign_handout

KEY = Ed25519PrivateKey.generate()
GOOD = Handout(
    hub_id="hub_a",
    version="1.2.0",
    file="porten-1.2.0-py3-none-any.whl",
    size=7,
    sha256="0123456789abcdef" * 4,
)


def test_what_was_signed_is_read() -> None:
    assert read_handout(sign_handout(KEY, GOOD), KEY.public_key()) == GOOD


def test_another_key_signs_for_nothing() -> None:
    with pytest.raises(HandoutInvalid, match="did not sign"):
        read_handout(sign_handout(Ed25519PrivateKey.generate(), GOOD), KEY.public_key())


def test_the_hubs_word_on_something_else_is_none_on_a_program() -> None:
    token = jws.Signer(KEY).sign(jws.header_of("porten-checkpoint+jwt"), msgspec.json.encode(GOOD))
    with pytest.raises(HandoutInvalid, match=HANDOUT_TYPE.replace("+", r"\+")):
        read_handout(token, KEY.public_key())


@pytest.mark.parametrize(
    "wrong",
    [
        {"file": "../../porten-1.2.0-py3-none-any.whl"},
        {"file": "porten-../x-py3-none-any.whl"},
        {"file": "porten-1.2.0-py3-none-any.whl\n"},
        {"file": "other-1.2.0-py3-none-any.whl"},
        {"file": ""},
        {"sha256": "0123456789ABCDEF" * 4},
        {"sha256": "0123"},
        {"size": 0},
    ],
    ids=repr,
)
def test_a_name_that_leads_elsewhere_is_refused_whoever_signed_it(wrong: dict[str, object]) -> None:
    token = sign_handout(KEY, msgspec.structs.replace(GOOD, **wrong))
    with pytest.raises(HandoutInvalid, match="no wheel"):
        read_handout(token, KEY.public_key())


@given(st.text(max_size=200) | st.binary(max_size=200).map(lambda data: data.decode("latin-1")))
def test_anything_else_is_refused_in_one_way(token: str) -> None:
    with pytest.raises(HandoutInvalid):
        read_handout(token, KEY.public_key())
