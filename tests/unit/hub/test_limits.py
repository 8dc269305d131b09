"""The counts of one Hub process: what is taken is given back, and each limit refuses by itself."""

import contextlib

import pytest

from hub.errors import RequestFailed
from hub.limits import BODY_BUDGET_BYTES, SHARE, Limits
from hub.quotas import UNLIMITED, Allowance, month_of, month_start
from hub.storage.records import ApiKey

NOW = 1_700_000_000.0


class World:
    """Time and the month's use, as a test sets them."""

    def __init__(self):
        self.timer, self.clock, self.months_use = 0.0, NOW, {}

    def used(self, holder, utc):
        assert utc == self.clock
        return self.months_use.get(holder, 0)

    def month(self, utc):
        return month_of(utc)

    def limits(self, *, max_requests=100, max_per_key=50):
        return Limits(
            max_requests=max_requests,
            max_per_key=max_per_key,
            monthly=self,
            clock=lambda: self.clock,
            timer=lambda: self.timer,
        )


@pytest.fixture
def world():
    return World()


def at_rest(**sizes):
    return World().limits(**sizes)


def key(key_id="key_a", organisation_id="org_a", limits=UNLIMITED, ceiling=UNLIMITED):
    return ApiKey(
        id=key_id,
        organisation_id=organisation_id,
        name="test",
        prefix="",
        hash="",
        fleet="own",
        regions=frozenset(),
        minimum_trust="community",
        models=None,
        created_at=NOW,
        limits=limits,
        ceiling=ceiling,
    )


def refused(limits, caller, tokens=None):
    """Why a request is refused."""
    with pytest.raises(RequestFailed) as caught:
        served(limits, caller, tokens, 0)
    return caught.value


def served(limits, caller, tokens, used):
    with limits.request(caller) as hold:
        if tokens is not None:
            hold.reserve(tokens)
        hold.used = used


def test_requests_and_bodies_are_limited_and_given_back():
    limits = at_rest(max_requests=2, max_per_key=1)
    with limits.request(key("a", "org_a")) as hold:
        hold.grow(1)
        with pytest.raises(RequestFailed) as caught, limits.request(key("a", "org_a")):
            pass
        assert caught.value.code == "rate_limit_exceeded"
        assert "1 requests under way" in caught.value.message
        with limits.request(key("b", "org_b")):
            with pytest.raises(RequestFailed) as caught, limits.request(key("c", "org_c")):
                pass
            assert caught.value.code == "overloaded"
    with limits.request(key("a", "org_a")) as hold:
        hold.grow(1)
    assert limits.body_bytes == 0


def test_the_budget_for_bodies_is_for_all():
    limits = at_rest(max_requests=100, max_per_key=1)
    with contextlib.ExitStack() as stack:
        for number in range(SHARE):
            hold = stack.enter_context(limits.request(key(f"key_{number}", f"org_{number}")))
            hold.grow(BODY_BUDGET_BYTES // SHARE)
        last = stack.enter_context(limits.request(key("key_last", "org_last")))
        with pytest.raises(RequestFailed) as caught:
            last.grow(1)
        assert caught.value.code == "overloaded"
    assert (limits.body_bytes, limits.held) == (0, {})


def test_one_organisation_holds_no_more_than_its_share_of_the_budget_whatever_its_keys():
    limits = at_rest(max_requests=100, max_per_key=1)
    with (
        limits.request(key("a", "org_a")) as first,
        limits.request(key("b", "org_a")) as second,
        limits.request(key("c", "org_c")) as other,
    ):
        first.grow(BODY_BUDGET_BYTES // SHARE - 1)
        second.grow(1)
        with pytest.raises(RequestFailed) as caught:
            second.grow(1)
        assert caught.value.code == "rate_limit_exceeded"
        other.grow(BODY_BUDGET_BYTES // SHARE)
    assert (limits.body_bytes, limits.held) == (0, {})


def test_one_organisation_has_no_more_than_its_share_of_bodies_that_still_come():
    limits = at_rest(max_requests=2 * SHARE, max_per_key=2 * SHARE)
    with limits.request(key("a", "org_a")) as one, limits.request(key("b", "org_b")) as other:
        with one.receiving(), one.receiving():
            with pytest.raises(RequestFailed) as caught, one.receiving():
                pass
            assert caught.value.code == "rate_limit_exceeded"
            with other.receiving():
                pass
        with one.receiving():
            pass
    assert limits.arriving == {}


def test_a_key_and_its_organisation_each_have_so_many_requests_under_way():
    limits = at_rest()
    own, ceiling = Allowance(concurrent_requests=1), Allowance(concurrent_requests=2)
    with limits.request(key("a", limits=own, ceiling=ceiling)):
        assert "This key has 1 requests" in refused(limits, key("a", limits=own, ceiling=ceiling)).message
        with limits.request(key("b", ceiling=ceiling)):
            failure = refused(limits, key("c", ceiling=ceiling))
            assert (failure.code, failure.retry_after) == ("rate_limit_exceeded", 1.0)
            assert "Your organisation has 2 requests" in failure.message
            with limits.request(key("d", "org_d")):
                pass
        with limits.request(key("c", ceiling=ceiling)):
            pass


def test_a_limit_above_the_hubs_own_changes_nothing():
    limits = at_rest(max_per_key=1)
    caller = key(limits=Allowance(concurrent_requests=9))
    with limits.request(caller):
        assert "has 1 requests" in refused(limits, caller).message


def test_requests_a_minute_come_back_with_time(world):
    limits, caller = world.limits(), key(limits=Allowance(requests_per_minute=2))
    for _ in range(2):
        served(limits, caller, 1, 0)
    failure = refused(limits, caller)
    assert (failure.code, failure.retry_after) == ("rate_limit_exceeded", pytest.approx(30.0))
    world.timer += failure.retry_after
    served(limits, caller, 1, 0)
    assert refused(limits, caller).retry_after == pytest.approx(30.0)


def test_a_request_that_is_refused_for_its_tokens_is_none(world):
    limits = world.limits()
    caller = key(limits=Allowance(requests_per_minute=2, tokens_per_minute=100))
    served(limits, caller, 100, 100)
    for _ in range(5):
        assert refused(limits, caller, 60).retry_after == pytest.approx(36.0)
    world.timer += 36.0
    served(limits, caller, 60, 60)


@pytest.mark.parametrize("used", [0, 30, 90])
def test_what_was_used_counts_and_not_what_was_reserved(world, used):
    limits, caller = world.limits(), key(limits=Allowance(tokens_per_minute=100))
    served(limits, caller, 90, used)
    _, tokens = limits.standings(caller)
    assert tokens.left == 100 - used


def test_what_breaks_off_gives_back_what_it_reserved(world):
    limits, caller = world.limits(), key(limits=Allowance(tokens_per_minute=100, monthly_tokens=100))
    with contextlib.suppress(ZeroDivisionError), limits.request(caller) as hold:
        hold.reserve(90)
        raise ZeroDivisionError
    _, tokens = limits.standings(caller)
    assert tokens.left == 100
    served(limits, caller, 100, 0)


def test_the_budget_of_a_month_is_the_keys_and_the_organisations(world):
    limits = world.limits()
    caller = key(limits=Allowance(monthly_tokens=100), ceiling=Allowance(monthly_tokens=1_000))
    served(limits, caller, 100, 0)
    world.months_use = {"key_a": 50}
    failure = refused(limits, caller, 51)
    assert (failure.code, failure.retry_after) == ("quota_exceeded", month_start(month_of(NOW) + 1) - NOW)
    assert failure.message.startswith("This key")
    served(limits, caller, 50, 0)
    world.months_use = {"org_a": 995}
    assert refused(limits, caller, 6).message.startswith("Your organisation")
    world.clock, world.months_use = NOW + failure.retry_after, {}
    served(limits, caller, 51, 0)


def test_a_changed_limit_counts_from_the_next_request(world):
    limits = world.limits()
    served(limits, key(limits=Allowance(tokens_per_minute=100)), 100, 100)
    served(limits, key(limits=Allowance(tokens_per_minute=200)), 100, 100)
    assert refused(limits, key(limits=Allowance(tokens_per_minute=200)), 1)
    served(limits, key(), 10**9, 10**9)


def test_keys_of_one_organisation_share_its_ceiling_and_those_of_another_do_not(world):
    limits, ceiling = world.limits(), Allowance(tokens_per_minute=100)
    served(limits, key("a", ceiling=ceiling), 80, 80)
    assert refused(limits, key("b", ceiling=ceiling), 21).message.startswith("Your organisation")
    served(limits, key("c", "org_c", ceiling=ceiling), 100, 100)


def test_the_tightest_limit_is_told_and_none_where_there_is_none(world):
    limits = world.limits()
    assert limits.standings(key()) == (None, None)
    caller = key(limits=Allowance(tokens_per_minute=100), ceiling=Allowance(50, 80))
    requests, tokens = limits.standings(caller)
    assert (requests.limit, requests.left, tokens.limit) == (50, 50, 80)


def test_minutes_of_keys_at_rest_are_forgotten_and_no_others(world, monkeypatch):
    monkeypatch.setattr("hub.limits.MAX_QUOTAS", 10)
    limits, own = world.limits(), Allowance(requests_per_minute=1)
    served(limits, key("busy", limits=own), 1, 0)
    for number in range(30):
        world.timer += 1
        with limits.request(key(f"key_{number}", limits=Allowance(tokens_per_minute=5))):
            pass
    assert len(limits._quotas) <= 11
    assert refused(limits, key("busy", limits=own)).retry_after == pytest.approx(30.0)
