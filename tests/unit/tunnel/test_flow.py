import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunnel.errors import ProtocolViolation
from tunnel.flow import (
    LEAST_WINDOW,
    MAX_OUTSTANDING_CREDIT,
    ByteBudget,
    ReceiveWindow,
    SendCredit,
    TokenBucket,
)


@given(st.lists(st.integers(1, 5000), max_size=200), st.integers(1000, 5000), st.integers(0, 20_000))
def test_a_sender_that_obeys_credit_is_never_stuck_and_never_refused(
    chunks: list[int], size: int, limit: int
) -> None:
    window, credit = ReceiveWindow(size, limit), SendCredit(size)
    for chunk in chunks:
        left = chunk
        while left:
            piece = min(left, credit.granted - credit.used)
            assert piece > 0
            credit.used += piece
            left -= piece
            window.accept(piece)
            assert window.received - window.consumed <= max(size, limit)
            offset = window.consume(piece)
            if offset is not None:
                assert credit.grant(offset)


def test_over_sending_is_a_violation() -> None:
    window = ReceiveWindow(10, 10)
    window.accept(10)
    with pytest.raises(ProtocolViolation):
        window.accept(1)


def test_credit_comes_at_half_a_window() -> None:
    window = ReceiveWindow(100, 100)
    window.accept(100)
    assert window.consume(49) is None
    assert window.consume(1) == 150
    assert window.consume(49) is None


def test_a_window_doubles_up_to_its_limit() -> None:
    window = ReceiveWindow(100, 400)
    offsets = []
    for _ in range(5):
        window.accept(window.granted - window.received)
        offsets.append(window.consume(window.received - window.consumed))
    assert offsets == [300, 700, 1100, 1500, 1900]


def test_a_spent_budget_narrows_what_is_new_and_lets_nothing_grow() -> None:
    budget = ByteBudget(300_000)
    first = ReceiveWindow(budget.begin(256 * 1024), 512 * 1024, budget)
    second = ReceiveWindow(budget.begin(256 * 1024), 256 * 1024, budget)
    assert (first.size, second.size) == (256 * 1024, LEAST_WINDOW)
    first.accept(first.granted)
    assert first.consume(first.received) == 512 * 1024, "as far ahead as before, no farther"
    second.accept(second.granted)
    assert second.consume(second.received) == 3 * LEAST_WINDOW, "there is room for this"
    assert budget.reserved == first.size + second.size <= budget.limit


def test_what_was_not_read_stays_in_the_budget_until_it_is_or_is_given_up() -> None:
    budget = ByteBudget(1000)
    window = ReceiveWindow(budget.begin(1000), 1000, budget)
    window.accept(600)
    window.consume(100)
    window.close()
    assert budget.reserved == 500
    assert window.consume(200) is None
    assert budget.reserved == 300
    window.abandon()
    window.consume(300)
    assert budget.reserved == 0


def test_credit_is_absolute_and_idempotent() -> None:
    credit = SendCredit(10)
    assert credit.grant(20)
    assert not credit.grant(20)
    assert not credit.grant(15)
    assert credit.granted == 20
    with pytest.raises(ProtocolViolation):
        credit.grant(MAX_OUTSTANDING_CREDIT + 1)


@given(st.lists(st.floats(0, 10), max_size=100), st.floats(0.1, 50), st.integers(1, 20))
def test_a_bucket_gives_no_more_than_burst_and_rate(gaps: list[float], rate: float, burst: int) -> None:
    bucket = TokenBucket(rate=rate, burst=burst)
    now, given_out = 1000.0, 0
    for gap in gaps:
        now += gap
        given_out += bucket.take(now)
    assert given_out <= burst + sum(gaps) * rate + 1e-6


def test_a_bucket_fills_again() -> None:
    bucket = TokenBucket(rate=2, burst=3)
    assert [bucket.take(50.0) for _ in range(4)] == [True, True, True, False]
    assert not bucket.take(50.4)
    assert bucket.take(50.6)
