"""One-time codes: the RFC's own vectors, each code once, a phone's clock a little off, secrets sealed."""

from urllib.parse import parse_qs, unquote, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hub import totp

RFC_SECRET = b"12345678901234567890"
KEYS = totp.Keys(sealing=b"s" * 32, hashing=b"h" * 32)
OTHERS = totp.Keys(sealing=b"t" * 32, hashing=b"i" * 32)
NOW = 1_700_000_000.0
MOMENTS = st.floats(min_value=1_500_000_000, max_value=4_000_000_000)


def code_at(moment, secret=RFC_SECRET):
    return totp._totp(secret).generate(moment).decode()


@pytest.mark.parametrize(
    ("moment", "code"),
    [
        (59, "287082"),
        (1111111109, "081804"),
        (1111111111, "050471"),
        (1234567890, "005924"),
        (2000000000, "279037"),
        (20000000000, "353130"),
    ],
)
def test_the_vectors_of_rfc_6238(moment, code):
    assert totp.matching_step(RFC_SECRET, code, now=moment, last_step=0) == moment // 30


@given(MOMENTS, st.integers(-3, 3))
def test_a_clock_may_be_one_step_off(now, off):
    step = int(now // 30) + off
    found = totp.matching_step(RFC_SECRET, code_at(step * 30), now=now, last_step=0)
    assert found == step or (abs(off) > 1 and found in (None, *range(step - 4, step + 5)))
    if abs(off) <= 1:
        assert found is not None


@given(MOMENTS)
def test_a_code_is_taken_once_and_none_from_before_it(now):
    step = totp.matching_step(RFC_SECRET, code_at(now), now=now, last_step=0)
    again = totp.matching_step(RFC_SECRET, code_at(now), now=now, last_step=step)
    assert again is None or again > step
    before = code_at(now - 30)
    if before not in (code_at(now), code_at(now + 30)):
        assert totp.matching_step(RFC_SECRET, before, now=now, last_step=step) is None


@given(st.text(max_size=40))
def test_what_is_no_code_is_none(text):
    right = {code_at(NOW + off) for off in (-30, 0, 30)}
    if "".join(text.split()) not in right:
        assert totp.matching_step(RFC_SECRET, text, now=NOW, last_step=0) is None


def test_a_code_may_be_typed_in_halves():
    code = code_at(NOW)
    assert totp.matching_step(RFC_SECRET, f" {code[:3]} {code[3:]} ", now=NOW, last_step=0) == NOW // 30


def test_digits_of_other_scripts_are_no_code():
    arabic = "".join(chr(0x660 + int(digit)) for digit in code_at(NOW))
    assert totp.matching_step(RFC_SECRET, arabic, now=NOW, last_step=0) is None


def test_secrets_are_never_the_same_and_long_enough():
    secrets = {totp.new_secret() for _ in range(100)}
    assert len(secrets) == 100
    assert {len(secret) for secret in secrets} == {20}


@pytest.mark.parametrize("issuer", ["Porten", "Acme: research & more", "Größe"])
def test_the_address_for_apps_has_all_that_they_need(issuer):
    parts = urlsplit(totp.provisioning_uri(RFC_SECRET, account="ada+1@acme.example", issuer=issuer))
    said = parse_qs(parts.query)
    assert (parts.scheme, parts.netloc) == ("otpauth", "totp")
    assert unquote(parts.path) == f"/{said['issuer'][0]}:ada+1@acme.example"
    assert said["secret"] == ["GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ"]
    assert (said["digits"], said["algorithm"], said["period"]) == (["6"], ["SHA1"], ["30"])
    assert totp.secret_text(RFC_SECRET).replace(" ", "") == said["secret"][0]


@given(st.binary(min_size=20, max_size=20), st.text(min_size=1, max_size=20))
def test_a_secret_is_opened_by_its_own_account_and_key_alone(secret, account):
    sealed = totp.seal(KEYS, account, secret)
    assert totp.unseal(KEYS, account, sealed) == secret
    assert totp.unseal(OTHERS, account, sealed) is None
    assert totp.unseal(KEYS, account + "x", sealed) is None
    assert totp.seal(KEYS, account, secret) != sealed


@pytest.mark.parametrize("damaged", ["", "x", "AAAA", "é", "A" * 80, "=" * 10])
def test_what_is_damaged_opens_nothing(damaged):
    assert totp.unseal(KEYS, "acct_a", damaged) is None


def test_a_changed_letter_of_what_is_sealed_opens_nothing():
    sealed = totp.seal(KEYS, "acct_a", RFC_SECRET)
    for at in range(len(sealed) - 4):
        changed = sealed[:at] + ("A" if sealed[at] != "A" else "B") + sealed[at + 1 :]
        assert totp.unseal(KEYS, "acct_a", changed) is None


def test_there_are_ten_recovery_codes_that_are_easy_to_copy():
    codes = totp.new_recovery_codes()
    assert len(set(codes)) == totp.RECOVERY_CODES == 10
    assert all(len(code) == 11 and code[5] == "-" for code in codes)
    assert not set("".join(codes)) & set("01ilo")


def test_a_recovery_code_may_be_typed_in_any_case_and_without_its_dash():
    code = totp.new_recovery_codes()[0]
    stored = totp.hash_recovery(KEYS, "acct_a", code)
    for typed in (code.upper(), code.replace("-", ""), f" {code[:5]} {code[6:]} "):
        assert totp.looks_like_recovery(typed)
        assert totp.hash_recovery(KEYS, "acct_a", typed) == stored
    assert totp.hash_recovery(KEYS, "acct_b", code) != stored
    assert totp.hash_recovery(OTHERS, "acct_a", code) != stored


def test_nothing_secret_is_in_what_is_printed():
    assert "sss" not in repr(KEYS)
