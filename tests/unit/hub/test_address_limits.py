"""The pace one address is held to, with the time passed in."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hub.api.address_limits import AddressLimits, site
from hub.errors import TooManyAttempts


def taken(limits, address, now, tries):
    """How many of so many tries at one moment are let through."""
    count = 0
    for _ in range(tries):
        try:
            limits.take(address, now)
        except TooManyAttempts:
            return count
        count += 1
    return count


def test_a_burst_is_let_through_and_then_the_pace_holds():
    limits = AddressLimits(per_minute=60, burst=3)
    assert taken(limits, "192.0.2.1", 100.0, 9) == 3
    assert taken(limits, "192.0.2.1", 100.9, 9) == 0
    assert taken(limits, "192.0.2.1", 102.0, 9) == 2
    assert taken(limits, "192.0.2.1", 9_999.0, 9) == 3


def test_a_refusal_says_when_the_next_try_is_let_through():
    limits = AddressLimits(per_minute=20, burst=1)
    limits.take("192.0.2.1", 50.0)
    with pytest.raises(TooManyAttempts) as refused:
        limits.take("192.0.2.1", 51.0)
    assert refused.value.retry_after == pytest.approx(2.0)
    with pytest.raises(TooManyAttempts):
        limits.take("192.0.2.1", 52.9)
    limits.take("192.0.2.1", 53.1)


@given(
    st.lists(st.floats(0, 40), min_size=1, max_size=80),
    st.integers(1, 10),
    st.floats(1, 600),
)
def test_no_rhythm_of_tries_gets_past_burst_and_rate(waits, burst, per_minute):
    limits, now, let_through = AddressLimits(per_minute=per_minute, burst=burst), 0.0, 0
    for wait in waits:
        now += wait
        let_through += taken(limits, "192.0.2.1", now, 1)
    assert let_through <= burst + now * per_minute / 60 + 1e-6


@given(st.lists(st.floats(-3_600, 3_600), max_size=40), st.integers(1, 5))
def test_a_clock_that_goes_back_gives_nothing_and_locks_nobody_out(steps, burst):
    limits, now = AddressLimits(per_minute=60, burst=burst), 10_000.0
    assert taken(limits, "192.0.2.1", now, burst) == burst
    let_through, forward = 0, 0.0
    for step in steps:
        now += step
        forward += max(step, 0.0)
        let_through += taken(limits, "192.0.2.1", now, 1)
        assert let_through <= forward + 1e-6
    # A hair more than the burst's seconds: sums of floats may come out a hair below it.
    assert taken(limits, "192.0.2.1", now + burst + 1e-6, burst) == burst


def test_addresses_do_not_share():
    limits = AddressLimits(per_minute=1, burst=1)
    assert [taken(limits, address, 0.0, 2) for address in ("192.0.2.1", "192.0.2.2", "unknown")] == [1, 1, 1]


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("2001:db8::1", "2001:db8::ffff:1:2", True),
        ("2001:db8:0:0:1::", "2001:0DB8::2", True),
        ("2001:db8::1", "2001:db8:0:1::1", False),
        ("fe80::1%eth0", "fe80::2%eth0", True),
        ("::ffff:192.0.2.1", "192.0.2.1", True),
        ("::ffff:192.0.2.1", "::ffff:192.0.2.2", False),
        ("192.0.2.1", "192.0.2.2", False),
        ("unknown", "unix:", False),
    ],
)
def test_who_owns_a_site_gets_no_more_by_changing_addresses_in_it(one, other, same):
    limits = AddressLimits(per_minute=1, burst=1)
    assert taken(limits, one, 0.0, 1) == 1
    assert taken(limits, other, 0.0, 1) == (0 if same else 1)
    assert (site(one) == site(other)) is same


@given(st.ip_addresses(v=6), st.integers(0, 2**64 - 1))
def test_every_address_of_a_slash_64_is_one_site(address, host):
    network = int(address) >> 64 << 64
    other = type(address)(network | host)
    if address.ipv4_mapped is None and other.ipv4_mapped is None:
        assert site(str(address)) == site(str(other))
    assert site(site(str(address)).removesuffix("/64")) == site(str(address))


def test_a_flood_from_many_addresses_stays_bounded_and_forgets_the_quietest():
    limits = AddressLimits(per_minute=1, burst=1, max_addresses=100)
    limits.take("192.0.2.1", 0.0)
    for number in range(5_000):
        limits.take(f"2001:db8:{number:x}::1", 1.0)
        assert taken(limits, "192.0.2.1", 1.0, 1) == 0, "who keeps knocking is not forgotten"
    assert len(limits._buckets) == 100
    assert taken(limits, "2001:db8::1", 1.0, 1) == 1
