"""Who may ask: secrets and copies of keys."""

import asyncio
from dataclasses import replace

import pytest

from hub.admission import Admission, check_model
from hub.changes import KeyChanged
from hub.errors import RequestFailed, StorageUnavailable
from hub.keys import mint


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


@pytest.mark.parametrize("changed", [False, True])
async def test_who_asked_too_late_goes_by_what_another_has_learnt_unless_it_changed(world, changed):
    secret, key = world.add_key()
    world.turns = 10
    late = asyncio.create_task(world.admission.authenticate(f"Bearer {secret}"))
    await asyncio.sleep(0)
    world.turns = 1
    early = await world.admission.authenticate(f"Bearer {secret}")
    world.error = StorageUnavailable("away")
    if changed:
        world.admission.obey(KeyChanged(key.id))
        assert await refusal(late) == "database_unavailable"
    else:
        assert await late is early


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


async def test_a_secret_that_was_rotated_out_opens_the_key_until_its_overlap_ends(world):
    old = mint()
    secret, key = world.add_key(
        previous_prefix=old.prefix, previous_hash=old.hash, previous_expires_at=world.clock + 60
    )
    world.keys[old.hash] = key
    for each in (secret, old.secret):
        assert (await world.admission.authenticate(f"Bearer {each}")).key is key
    admitted = await world.admission.authenticate(f"Bearer {old.secret}")
    world.clock += 60
    assert (await world.admission.authenticate(f"Bearer {secret}")).key is key
    assert await refusal(world.admission.authenticate(f"Bearer {old.secret}")) == "invalid_api_key"
    assert await refusal(world.admission.confirm(admitted)) == "invalid_api_key"


async def test_every_use_of_a_secret_that_opens_a_key_is_told_and_no_other(world):
    told = []
    admission = Admission(world, lambda: world.clock, lambda secret, at: told.append((secret, at)))
    secret, key = world.add_key()
    dead, _ = world.add_key(revoked_at=world.clock)
    await admission.authenticate(f"Bearer {secret}")
    for each in (dead, mint().secret, "nonsense"):
        await refusal(admission.authenticate(f"Bearer {each}"))
    assert told == [(key.hash, world.clock)]


async def test_who_may_ask_without_the_secret_is_the_caller_that_the_secret_makes(world):
    secret, key = world.add_key()
    admitted = await world.admission.admit(key)
    assert admitted is await world.admission.authenticate(f"Bearer {secret}")
    assert await world.admission.confirm(admitted) is admitted


async def test_without_the_secret_too_a_key_counts_as_it_is_now_and_not_as_it_was_seen(world):
    _, seen = world.add_key()
    world.keys[seen.hash] = replace(seen, revoked_at=1.0)
    assert await refusal(world.admission.admit(seen)) == "invalid_api_key"
    del world.keys[seen.hash]  # as a rotation without an overlap leaves it
    assert await refusal(world.admission.admit(seen)) == "invalid_api_key"


async def test_to_ask_without_the_secret_is_no_use_of_it(world):
    used = []
    admission = Admission(world, lambda: world.clock, lambda secret, _at: used.append(secret))
    secret, key = world.add_key()
    await admission.admit(key)
    assert used == []
    await admission.authenticate(f"Bearer {secret}")
    assert used == [key.hash]
