"""Limits on guessing, with time passed in."""

import pytest

from hub.attempts import Attempts, Limit
from hub.errors import TooManyAttempts


def test_the_window_slides_and_says_when_to_come_back():
    attempts = Attempts(Limit(attempts=3, window_s=100))
    for moment in (0.0, 10.0, 20.0):
        attempts.spend("ada", now=moment)
    with pytest.raises(TooManyAttempts) as refused:
        attempts.spend("ada", now=30.0)
    assert refused.value.retry_after == 70.0
    attempts.spend("ada", now=100.0)
    with pytest.raises(TooManyAttempts):
        attempts.spend("ada", now=101.0)


def test_subjects_do_not_share_and_refused_attempts_do_not_prolong():
    attempts = Attempts(Limit(attempts=1, window_s=100))
    attempts.spend("ada", now=0.0)
    attempts.spend("bob", now=0.0)
    for moment in range(1, 100):
        with pytest.raises(TooManyAttempts):
            attempts.spend("ada", now=float(moment))
    attempts.spend("ada", now=100.0)


def test_a_refund_takes_back_one_attempt_and_not_the_others():
    attempts = Attempts(Limit(attempts=2, window_s=100))
    attempts.spend("ada", now=0.0)
    attempts.spend("ada", now=1.0)
    attempts.refund("ada")
    attempts.spend("ada", now=2.0)
    with pytest.raises(TooManyAttempts):
        attempts.spend("ada", now=3.0)


def test_a_flood_of_subjects_stays_bounded():
    attempts = Attempts(Limit(attempts=1, window_s=100))
    for number in range(20_000):
        attempts.spend(str(number), now=0.0)
    assert len(attempts._seen) <= 10_000
