"""Who may ask: secrets, copies of keys, and limits."""

import asyncio
import contextlib

import pytest

from hub.admission import check_model
from hub.changes import KeyChanged
from hub.errors import RequestFailed
from hub.limits import BODY_BUDGET_BYTES, SHARE, Limits


async def refusal(awaitable):
    with pytest.raises(RequestFailed) as caught:
        await awaitable
    return caught.value.code


@pytest.mark.parametrize(
    "header",
    [None, "", "Bearer", "Bearer ", "Basic abc", "Bearer sk-porten-nonsense", "Bearer é", "sk-porten-x"],
)
async def test_what_is_no_key_is_refused_without_a_look_into_storage(world, header):
    world.error = RuntimeError("asked")
    assert await refusal(world.admission.authenticate(header)) == "invalid_api_key"


async def test_a_key_is_read_once(world):
    secret, key = world.add_key()
    first = await world.admission.authenticate(f"Bearer {secret}")
    world.error = RuntimeError("asked")
    assert await world.admission.authenticate(f"bearer {secret}") is first
    assert first.key == key


async def test_unknown_revoked_and_expired_look_the_same(world):
    revoked, _ = world.add_key(revoked_at=1.0)
    expired, _ = world.add_key(expires_at=world.clock)
    unknown, key = world.add_key()
    del world.keys[key.hash]
    for secret in (revoked, expired, unknown):
        assert await refusal(world.admission.authenticate(f"Bearer {secret}")) == "invalid_api_key"


async def test_a_key_expires_between_two_requests(world):
    secret, _ = world.add_key(expires_at=world.clock + 1)
    admitted = await world.admission.authenticate(f"Bearer {secret}")
    assert await world.admission.confirm(admitted) is admitted
    world.clock += 1
    assert await refusal(world.admission.confirm(admitted)) == "invalid_api_key"


async def test_two_who_read_at_once_share_the_copy_that_a_change_finds(world):
    secret, key = world.add_key()
    world.turns = 2
    both = await asyncio.gather(*[world.admission.authenticate(f"Bearer {secret}") for _ in range(2)])
    world.admission.obey(KeyChanged(key.id))
    assert [admitted.current for admitted in both] == [False, False]


async def test_a_policy_that_cannot_be_read_admits_nobody_anywhere(world):
    secret, _ = world.add_key(fleet="everything")
    assert (await world.admission.authenticate(f"Bearer {secret}")).policy is None


async def test_a_keys_own_list_of_models(world):
    secret, _ = world.add_key(models=frozenset({"a"}))
    admitted = await world.admission.authenticate(f"Bearer {secret}")
    check_model(admitted, "a")
    with pytest.raises(RequestFailed) as caught:
        check_model(admitted, "b")
    assert caught.value.code == "model_not_allowed"


def test_requests_and_bodies_are_limited_and_given_back():
    limits = Limits(max_requests=2, max_per_key=1)
    with limits.request("a", "org_a") as hold:
        hold.grow(1)
        with pytest.raises(RequestFailed) as caught, limits.request("a", "org_a"):
            pass
        assert (caught.value.code, caught.value.limit) == ("rate_limit_exceeded", 1)
        with limits.request("b", "org_b"):
            with pytest.raises(RequestFailed) as caught, limits.request("c", "org_c"):
                pass
            assert caught.value.code == "overloaded"
    with limits.request("a", "org_a") as hold:
        hold.grow(1)
    assert limits.body_bytes == 0


def test_the_budget_for_bodies_is_for_all():
    limits = Limits(max_requests=100, max_per_key=1)
    with contextlib.ExitStack() as stack:
        for number in range(SHARE):
            hold = stack.enter_context(limits.request(f"key_{number}", f"org_{number}"))
            hold.grow(BODY_BUDGET_BYTES // SHARE)
        last = stack.enter_context(limits.request("key_last", "org_last"))
        with pytest.raises(RequestFailed) as caught:
            last.grow(1)
        assert caught.value.code == "overloaded"
    assert (limits.body_bytes, limits.held) == (0, {})


def test_one_organisation_holds_no_more_than_its_share_of_the_budget_whatever_its_keys():
    limits = Limits(max_requests=100, max_per_key=1)
    with (
        limits.request("a", "org_a") as first,
        limits.request("b", "org_a") as second,
        limits.request("c", "org_c") as other,
    ):
        first.grow(BODY_BUDGET_BYTES // SHARE - 1)
        second.grow(1)
        with pytest.raises(RequestFailed) as caught:
            second.grow(1)
        assert caught.value.code == "rate_limit_exceeded"
        other.grow(BODY_BUDGET_BYTES // SHARE)
    assert (limits.body_bytes, limits.held) == (0, {})


def test_one_organisation_has_no_more_than_its_share_of_bodies_that_still_come():
    limits = Limits(max_requests=2 * SHARE, max_per_key=2 * SHARE)
    with limits.request("a", "org_a") as one, limits.request("b", "org_b") as other:
        with one.receiving(), one.receiving():
            with pytest.raises(RequestFailed) as caught, one.receiving():
                pass
            assert caught.value.code == "rate_limit_exceeded"
            with other.receiving():
                pass
        with one.receiving():
            pass
    assert limits.arriving == {}
