"""Keys that are changed and rotated, and notes of when they were used."""

import pytest

from hub.errors import InvalidInput, NotFound
from hub.keys import MAX_OVERLAP_S, change_key, hash_secret, issue_key, rotate_key
from hub.policy import Fleet, TrustClass
from hub.quotas import LARGEST, UNLIMITED, Allowance

NOW = 1_700_000_000.0
LIMITS = Allowance(60, 10_000, 4, 10**12)


@pytest.fixture
async def issued(storage, organisation):
    return await issue_key(storage, organisation.id, name="app", now=NOW, limits=LIMITS)


def rules(key, **changes):
    return {
        "name": key.name,
        "now": NOW,
        "fleet": Fleet(key.fleet),
        "regions": key.regions,
        "minimum_trust": TrustClass.parse(key.minimum_trust),
        "models": key.models,
        "expires_at": key.expires_at,
        "limits": key.limits,
    } | changes


class TestLimits:
    async def test_they_are_kept_with_the_key_and_the_ceiling_comes_with_the_hash(
        self, storage, organisation, issued
    ):
        ceiling = Allowance(None, 200_000, None, 5)
        await storage.organisations.set_limits(organisation.id, ceiling)
        found = await storage.keys.by_hash(hash_secret(issued.secret))
        assert (found.limits, found.ceiling) == (LIMITS, ceiling)
        assert (await storage.organisations.get(organisation.id)).limits == ceiling
        assert (await storage.keys.get(issued.key.id)).ceiling == UNLIMITED

    @pytest.mark.parametrize("limits", [UNLIMITED, LARGEST])
    async def test_none_and_the_largest_come_back_as_they_were(self, storage, organisation, limits):
        key = (await issue_key(storage, organisation.id, name="x", now=NOW, limits=limits)).key
        assert (await storage.keys.get(key.id)).limits == limits

    async def test_what_is_no_limit_makes_no_key(self, storage, organisation):
        with pytest.raises(InvalidInput, match="tokens_per_minute"):
            await issue_key(
                storage, organisation.id, name="x", now=NOW, limits=Allowance(tokens_per_minute=0)
            )
        assert await storage.keys.list() == []

    async def test_an_organisation_that_is_not_there_gets_none(self, storage):
        with pytest.raises(NotFound):
            await storage.organisations.set_limits("org_nobody", LIMITS)


class TestChange:
    async def test_all_of_it_changes_but_the_secret(self, storage, issued):
        before = await storage.settings.revision()
        wish = {
            "name": "other",
            "fleet": Fleet.ANY,
            "regions": frozenset({"eu-de"}),
            "minimum_trust": TrustClass.TRUSTED,
            "models": frozenset({"m"}),
            "expires_at": NOW + 5,
            "limits": UNLIMITED,
        }
        changed = await change_key(storage, issued.key, **rules(issued.key, **wish))
        assert changed == await storage.keys.by_hash(hash_secret(issued.secret))
        assert (changed.name, changed.fleet, changed.regions) == ("other", "any", {"eu-de"})
        assert (changed.minimum_trust, changed.models, changed.expires_at) == ("trusted", {"m"}, NOW + 5)
        assert (changed.limits, changed.created_at) == (UNLIMITED, issued.key.created_at)
        assert await storage.settings.revision() > before

    @pytest.mark.parametrize(
        "wrong",
        [
            {"name": " "},
            {"regions": frozenset({"mars"})},
            {"expires_at": NOW - 1},
            {"limits": Allowance(concurrent_requests=-1)},
        ],
    )
    async def test_what_cannot_be_accepted_changes_nothing(self, storage, issued, wrong):
        with pytest.raises(InvalidInput):
            await change_key(storage, issued.key, **rules(issued.key, **wrong))
        assert await storage.keys.get(issued.key.id) == issued.key

    async def test_a_key_that_has_expired_can_be_changed_and_stays_so_or_lives_again(
        self, storage, organisation
    ):
        key = (await issue_key(storage, organisation.id, name="x", now=NOW, expires_at=NOW + 1)).key
        later = NOW + 10
        renamed = await change_key(storage, key, **rules(key, name="y", now=later))
        assert not renamed.is_active(later)
        key = renamed
        assert (await change_key(storage, key, **rules(key, now=later, expires_at=None))).is_active(later)

    async def test_a_change_does_not_bring_back_what_somebody_else_narrowed(self, storage, organisation):
        wide = (await issue_key(storage, organisation.id, name="x", now=NOW, fleet=Fleet.ANY)).key
        narrowed = await change_key(storage, wide, **rules(wide, fleet=Fleet.OWN))
        assert await change_key(storage, wide, **rules(wide, name="y")) is None
        assert await storage.keys.get(wide.id) == narrowed

    async def test_a_revoked_key_does_not_come_back(self, storage, issued):
        await storage.keys.revoke(issued.key.id, now=NOW)
        assert await change_key(storage, issued.key, **rules(issued.key, expires_at=None)) is None
        revoked = await storage.keys.get(issued.key.id)
        with pytest.raises(NotFound):
            await change_key(storage, revoked, **rules(revoked, expires_at=None))
        with pytest.raises(InvalidInput):
            await rotate_key(storage, revoked, now=NOW, overlap_s=0)
        with pytest.raises(NotFound):
            await rotate_key(storage, issued.key, now=NOW, overlap_s=0)


class TestRotation:
    async def test_both_secrets_open_the_same_key_until_the_overlap_ends(self, storage, issued):
        rotated = await rotate_key(storage, issued.key, now=NOW, overlap_s=60)
        assert (rotated.key.id, rotated.key.limits) == (issued.key.id, LIMITS)
        assert rotated.secret != issued.secret
        assert (rotated.key.previous_prefix, rotated.key.prefix) == (issued.key.prefix, rotated.secret[:16])
        old, new = hash_secret(issued.secret), hash_secret(rotated.secret)
        for secret, works_until in ((new, NOW + 10**6), (old, NOW + 59.9)):
            found = await storage.keys.by_hash(secret)
            assert found.id == issued.key.id
            assert found.admits(secret, works_until)
        assert not (await storage.keys.by_hash(old)).admits(old, NOW + 60)

    async def test_an_overlap_of_nothing_ends_the_secret_at_once(self, storage, issued):
        await rotate_key(storage, issued.key, now=NOW, overlap_s=0)
        old = hash_secret(issued.secret)
        assert not (await storage.keys.by_hash(old)).admits(old, NOW)

    async def test_a_second_rotation_ends_what_the_first_left(self, storage, issued):
        second = await rotate_key(storage, issued.key, now=NOW, overlap_s=60)
        await rotate_key(storage, second.key, now=NOW, overlap_s=60)
        assert await storage.keys.by_hash(hash_secret(issued.secret)) is None
        assert (await storage.keys.by_hash(hash_secret(second.secret))).id == issued.key.id

    async def test_revoking_ends_both(self, storage, issued):
        rotated = await rotate_key(storage, issued.key, now=NOW, overlap_s=60)
        await storage.keys.revoke(issued.key.id, now=NOW)
        for secret in (issued.secret, rotated.secret):
            hashed = hash_secret(secret)
            assert not (await storage.keys.by_hash(hashed)).admits(hashed, NOW)

    @pytest.mark.parametrize("overlap_s", [-1, MAX_OVERLAP_S + 1])
    async def test_an_overlap_has_bounds(self, storage, issued, overlap_s):
        with pytest.raises(InvalidInput, match="overlap"):
            await rotate_key(storage, issued.key, now=NOW, overlap_s=overlap_s)
        assert await storage.keys.get(issued.key.id) == issued.key

    async def test_no_record_shows_a_hash(self, storage, issued):
        rotated = await rotate_key(storage, issued.key, now=NOW, overlap_s=60)
        assert rotated.key.hash not in repr(rotated)
        assert rotated.key.previous_hash not in repr(rotated)
        assert rotated.secret not in repr(rotated)


class TestUse:
    async def test_it_is_noted_for_the_secret_that_was_used_and_never_goes_back(self, storage, issued):
        rotated = await rotate_key(storage, issued.key, now=NOW, overlap_s=60)
        old, new = hash_secret(issued.secret), hash_secret(rotated.secret)
        await storage.keys.mark_used({new: NOW + 5, "unknown": NOW + 9})
        await storage.keys.mark_used({old: NOW + 7})
        await storage.keys.mark_used({old: NOW + 6, new: NOW + 6})
        key = await storage.keys.get(issued.key.id)
        assert (key.last_used_at, key.previous_used_at) == (NOW + 7, NOW + 7)

    async def test_a_rotation_keeps_when_the_secret_before_was_used(self, storage, issued):
        await storage.keys.mark_used({hash_secret(issued.secret): NOW + 5})
        rotated = await rotate_key(storage, issued.key, now=NOW + 6, overlap_s=60)
        assert (rotated.key.last_used_at, rotated.key.previous_used_at) == (NOW + 5, NOW + 5)
