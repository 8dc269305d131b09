"""The limits of a minute and a month: what is let through stays within its bound, and nothing is lost."""

import math
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from hub.errors import InvalidInput, RequestFailed
from hub.quotas import (
    LARGEST_TOKENS,
    MINUTE_S,
    UNLIMITED,
    UNSAID_COMPLETION,
    Allowance,
    Bucket,
    Quota,
    Reservation,
    TokenBucket,
    check_tokens,
    checked_allowance,
    estimate,
    give_request_back,
    month_of,
    month_start,
    take_request,
    tightest,
)

LIMITS = st.integers(1, 1_000)
STEPS = st.floats(0, 90, allow_nan=False)
A_LITTLE = 1e-3  # of a token, for sums of floating point


def quota(**limits: int) -> Quota:
    return Quota("key_1", "This key", Allowance(**limits), 0.0)


class TestBucket:
    @given(LIMITS, st.lists(st.tuples(STEPS, st.integers(1, 400)), max_size=60))
    def test_over_any_span_no_more_passes_than_a_minutes_allowance_and_what_fills_meanwhile(
        self, limit, asks
    ):
        bucket, now, passed = Bucket(limit, 0.0), 0.0, []
        for step, cost in asks:
            now += step
            if not bucket.wait(cost, now):
                bucket.add(-min(cost, limit), now)
                passed.append((now, min(cost, limit)))
        for first in range(len(passed)):
            for last in range(first, len(passed)):
                span = passed[last][0] - passed[first][0]
                used = sum(cost for _, cost in passed[first : last + 1])
                assert used <= limit * (1 + span / MINUTE_S) + A_LITTLE

    @given(LIMITS, st.lists(st.tuples(STEPS, st.integers(1, 400)), max_size=30), st.integers(1, 2_000))
    def test_what_is_told_to_wait_is_true_and_no_longer_than_need_be(self, limit, asks, cost):
        bucket, now = Bucket(limit, 0.0), 1e6
        for step, each in asks:
            now += step
            bucket.add(-each, now)
        wait = bucket.wait(cost, now)
        if wait > 1e-3:
            assert Bucket.wait(bucket, cost, now + wait * 0.99) > 0
        assert bucket.wait(cost, now + math.ceil(wait)) == 0
        if wait == int(wait):
            assert bucket.wait(cost, now + wait) == 0

    @given(LIMITS, st.lists(st.tuples(st.floats(-1e6, 1e6), st.integers(1, 50)), max_size=40))
    def test_a_clock_that_jumps_gives_no_more_than_one_allowance_and_locks_nobody_out(self, limit, asks):
        bucket, now = Bucket(limit, 0.0), 0.0
        for step, cost in asks:
            now += step
            assert bucket.standing(now).left <= limit
            if not bucket.wait(cost, now):
                bucket.add(-min(cost, limit), now)
        assert bucket.wait(limit, now) <= MINUTE_S + 1e-6
        assert bucket.wait(limit, now + MINUTE_S + 1e-3) == 0

    @given(LIMITS, LIMITS, st.integers(0, 3_000))
    def test_another_limit_leaves_spent_what_was_spent(self, before, after, spent):
        bucket = Bucket(before, 0.0)
        bucket.add(-spent, 0.0)
        bucket.resize(after, 0.0)
        assert bucket.standing(0.0).left == max(after - spent, 0)

    def test_it_stands_as_openai_says_it(self):
        bucket = Bucket(60, 0.0)
        bucket.add(-1, 0.0)
        standing = bucket.standing(0.0)
        assert (standing.limit, standing.left, standing.reset_s) == (60, 59, pytest.approx(1.0))

    def test_a_limit_that_cannot_be_read_lets_nothing_through_ever(self):
        assert Bucket(0, 0.0).wait(1, 1e9) == math.inf
        with pytest.raises(RequestFailed) as caught:
            take_request([quota(requests_per_minute=0)], 1e9)
        assert caught.value.retry_after is None


class TestReservations:
    @given(
        LIMITS,
        st.lists(st.tuples(STEPS, st.integers(1, 400), st.integers(0, 20)), max_size=40),
        STEPS,
    )
    def test_what_uses_nothing_leaves_the_bucket_as_if_it_had_never_been(self, limit, asks, rest):
        """Failed, cancelled, out of time: however long it took, and however many were under way."""
        bucket, now, opened = TokenBucket(limit, 0.0), 0.0, []
        for step, cost, age in asks:
            now += step
            while len(opened) > age:
                bucket.settle(opened.pop(0), 0, now)
            if not bucket.wait(cost, now):
                opened.append(bucket.reserve(cost, now))
        now += rest
        for held in opened:
            bucket.settle(held, 0, now)
        assert bucket.standing(now).left == limit
        assert bucket.is_full(now)

    def test_a_reservation_that_time_has_filled_up_again_does_not_come_back_a_second_time(self):
        bucket = TokenBucket(100, 0.0)
        old = bucket.reserve(100, 0.0)
        assert bucket.standing(60.0).left == 100
        young = bucket.reserve(100, 60.0)
        bucket.settle(old, 0, 60.0)
        assert bucket.standing(60.0).left == 0
        bucket.settle(young, 0, 60.0)
        assert bucket.standing(60.0).left == 100

    def test_debt_is_carried_over_and_paid_before_anything_passes(self):
        bucket = TokenBucket(60, 0.0)
        bucket.settle(bucket.reserve(10, 0.0), 100, 0.0)
        standing = bucket.standing(0.0)
        assert (standing.left, standing.reset_s) == (0, pytest.approx(100.0))
        assert bucket.wait(1, 0.0) == pytest.approx(41.0)

    def test_it_ends_once(self):
        one = quota(tokens_per_minute=100, monthly_tokens=1_000)
        reservation = Reservation([one], 40, 0.0)
        assert (one.reserved, one.tokens.standing(0.0).left) == (40, 60)
        for _ in range(2):
            reservation.settle(10, 0.0)
        assert (one.reserved, one.tokens.standing(0.0).left) == (0, 90)

    def test_a_limit_taken_away_or_given_meanwhile_harms_nothing(self):
        one = quota(tokens_per_minute=100)
        first = Reservation([one], 40, 0.0)
        one.obey(Allowance(requests_per_minute=5), 0.0)
        second = Reservation([one], 40, 0.0)
        one.obey(Allowance(tokens_per_minute=50), 0.0)
        first.settle(40, 0.0)
        second.settle(40, 0.0)
        assert one.tokens.standing(0.0).left == 50
        assert one.is_idle(0.0)


@dataclass
class Asked:
    at: float
    cost: int
    reservation: Reservation
    begun: int
    ended: int | None = None
    used: int | None = None

    @property
    def tokens(self) -> int:
        return 0 if self.used is None else self.used

    def held(self, allowance: Allowance) -> int:
        """What it could reserve: a bucket has no more than it holds."""
        return min(self.cost, allowance.tokens_per_minute)


@dataclass
class Seen:
    """What went through one quota."""

    quota: Quota
    asked: list[Asked] = field(default_factory=list)


class Limited(RuleBasedStateMachine):
    """Two keys under one ceiling, requests that end as they like, a clock that only grows."""

    def __init__(self):
        super().__init__()
        self.now, self.turn, self.under_way = 0.0, 0, []
        self.ceiling = Seen(Quota("org", "Your organisation", Allowance(6, 900, None, None), 0.0))
        self.keys = [
            Seen(Quota("key_0", "This key", Allowance(4, 500, None, 5_000), 0.0)),
            Seen(Quota("key_1", "This key", Allowance(None, 700, None, None), 0.0)),
        ]
        self.month_used = 0

    @rule(seconds=st.floats(0, 40, allow_nan=False))
    def wait(self, seconds):
        self.now += seconds

    @rule(which=st.sampled_from([0, 1]), cost=st.integers(1, 1_200))
    def ask(self, which, cost):
        seen = [self.keys[which], self.ceiling]
        quotas = [each.quota for each in seen]
        before = [each.quota.tokens.standing(self.now).left for each in seen]
        try:
            take_request(quotas, self.now)
        except RequestFailed as refused:
            self.is_true(refused, lambda now: take_request(quotas, now), quotas)
            return
        try:
            quotas[0].check_budget(cost, self.month_used, 1_000.0)
            check_tokens(quotas, cost, self.now)
        except RequestFailed as refused:
            give_request_back(quotas, self.now)
            after = [each.quota.tokens.standing(self.now).left for each in seen]
            assert after == before, "a refusal costs nothing"
            if "a minute" in refused.message:
                self.is_true(refused, lambda now: check_tokens(quotas, cost, now), ())
            return
        self.turn += 1
        asked = Asked(self.now, cost, Reservation(quotas, cost, self.now), self.turn)
        for each in seen:
            each.asked.append(asked)
        self.under_way.append((which, asked))

    def is_true(self, refused, again, taken):
        """Nobody else asking, the same passes after Retry-After and not before half of it."""
        assert refused.code == "rate_limit_exceeded"
        ripe = self.now + math.ceil(refused.retry_after)
        states = [(bucket, bucket._level, bucket._at) for bucket in self.buckets()]
        again(ripe)
        for bucket, level, at in states:
            bucket._level, bucket._at = level, at
        if refused.retry_after > 0.01:
            with pytest.raises(RequestFailed):
                again(self.now + refused.retry_after / 2)
            for bucket, level, at in states:
                bucket._level, bucket._at = level, at

    def buckets(self):
        every = [self.ceiling, *self.keys]
        return [
            bucket
            for each in every
            for bucket in (each.quota.requests, each.quota.tokens)
            if bucket is not None
        ]

    @precondition(lambda self: self.under_way)
    @rule(data=st.data(), used=st.integers(0, 1_500))
    def end(self, data, used):
        which, asked = self.under_way.pop(data.draw(st.integers(0, len(self.under_way) - 1)))
        asked.reservation.settle(used, self.now)
        self.turn += 1
        asked.used, asked.ended = used, self.turn
        if which == 0:
            self.month_used += used

    @invariant()
    def no_span_sees_more_than_its_bound(self):
        for seen in (self.ceiling, *self.keys):
            allowance = seen.quota.allowance
            for start, first in enumerate(seen.asked):
                for stop in range(start, len(seen.asked)):
                    last = seen.asked[stop]
                    within = seen.asked[start : stop + 1]
                    grown = 1 + (last.at - first.at) / MINUTE_S
                    if allowance.requests_per_minute is not None:
                        assert len(within) <= allowance.requests_per_minute * grown + A_LITTLE
                    open_then = [each for each in within if each.ended is None or each.ended > last.begun]
                    beyond = sum(max(each.tokens - each.held(allowance), 0) for each in open_then)
                    used = sum(each.tokens for each in within)
                    assert used <= allowance.tokens_per_minute * grown + beyond + A_LITTLE

    @invariant()
    def the_month_is_exceeded_by_no_more_than_what_went_beyond_its_estimates(self):
        seen = self.keys[0]
        beyond = sum(max(each.tokens - min(each.cost, 5_000), 0) for each in seen.asked)
        assert self.month_used <= 5_000 + beyond

    @invariant()
    def what_is_reserved_is_what_is_under_way(self):
        under_way = [asked for which, asked in self.under_way if which == 0]
        assert self.keys[0].quota.reserved == sum(min(asked.cost, 5_000) for asked in under_way)
        assert self.ceiling.quota.reserving == len(self.under_way)

    def teardown(self):
        for _, asked in self.under_way:
            asked.reservation.settle(0, self.now)
        assert self.keys[0].quota.reserved == 0
        longest = sum(asked.tokens for asked in self.ceiling.asked) + 1
        assert all(each.quota.is_idle(self.now + longest * MINUTE_S) for each in (self.ceiling, *self.keys))


TestLimited = Limited.TestCase
TestLimited.settings = settings(max_examples=120, stateful_step_count=30, deadline=None)


class TestBudget:
    def test_it_holds_used_reserved_and_asked_together(self):
        one = quota(monthly_tokens=100)
        one.check_budget(60, 40, 5.0)
        Reservation([one], 50, 0.0)
        with pytest.raises(RequestFailed) as held:
            one.check_budget(20, 40, 5.0)
        assert (held.value.code, held.value.retry_after) == ("rate_limit_exceeded", 1.0)
        with pytest.raises(RequestFailed) as gone:
            one.check_budget(61, 40, 5.0)
        assert (gone.value.code, gone.value.retry_after) == ("quota_exceeded", 5.0)
        assert "has 60 left" in gone.value.message

    def test_a_request_that_may_take_more_than_all_of_it_passes_when_it_is_whole(self):
        quota(monthly_tokens=100).check_budget(10**9, 0, 5.0)

    def test_one_that_cannot_be_read_refuses(self):
        with pytest.raises(RequestFailed) as caught:
            quota(monthly_tokens=0).check_budget(1, 0, 5.0)
        assert (caught.value.code, caught.value.retry_after) == ("quota_exceeded", None)

    @given(st.floats(0, 4e9))
    def test_months_are_whole_and_follow_each_other(self, utc):
        month = month_of(utc)
        assert month_start(month) <= utc < month_start(month + 1)
        assert month_of(month_start(month)) == month


class TestEstimate:
    @pytest.mark.parametrize(
        ("said", "reckoned"),
        [
            ({"completion": 100, "generates": True}, 350),
            ({"completion": None, "generates": True}, 250 + UNSAID_COMPLETION),
            ({"completion": None, "generates": False}, 250),
            ({"completion": 10**18, "generates": True, "context_length": 4_096}, 4_096),
            ({"completion": -5, "generates": True}, 250),
        ],
    )
    def test_it_is_the_prompt_and_what_the_answer_may_have(self, said, reckoned):
        assert estimate(1_000, **said) == reckoned

    def test_it_is_never_nothing(self):
        assert estimate(0, 0, generates=True) == 1


@pytest.mark.parametrize("field", Allowance.__dataclass_fields__)
def test_a_limit_is_a_whole_number_that_can_be_kept(field):
    for value in (0, -1, LARGEST_TOKENS + 1):
        with pytest.raises(InvalidInput, match=field):
            checked_allowance(Allowance(**{field: value}))
    assert checked_allowance(Allowance(**{field: 1})) != UNLIMITED


def test_of_two_limits_the_one_of_which_least_is_left_is_told():
    wide, narrow = Bucket(1_000, 0.0), Bucket(100, 0.0)
    wide.add(-950, 0.0)
    assert tightest([wide, narrow], 0.0).limit == 1_000
    assert tightest([], 0.0) is None
