"""Enrollment on a real database: single use, races, pace, limits, and who may."""

import asyncio
from dataclasses import replace

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from hub.changes import NodeChanged, NodeRevoked
from hub.enrollment import Denied, Enrolled, Expired, Pending, SlowDown
from hub.errors import (
    CodeUnknown,
    InvalidInput,
    JoinTokenInvalid,
    NotAllowed,
    NotFound,
    Outdated,
    SignatureRefused,
    TooManyAttempts,
)
from hub.placement import PlacementChange, rules_seen
from hub.policy import PRIVATE, Sharing, SharingKind, TrustClass
from hub.storage.records import Role
from tunnel.identity import encode_public_key, read_credential

KEY = Ed25519PrivateKey.generate()
PUBLIC = encode_public_key(KEY.public_key())
MACHINE = {"hostname": "box", "fingerprint": "ab:cd"}
ADDRESS = "192.0.2.1"


async def start(enrollment, address=ADDRESS):
    return await enrollment.service.start_device(PUBLIC, "box", MACHINE, address)


async def approve(enrollment, grant, account, **changes):
    wish = {"name": "box", "region": "eu-de"} | changes
    return await enrollment.service.approve(grant.user_code, account, **wish)


def said(**changes):
    """A change that says the region too."""
    return PlacementChange(says_region=True, **changes)


async def test_a_machine_becomes_a_node_of_whoever_approved_it(enrollment, people, clock):
    operator = await people.get(Role.OPERATOR)
    grant = await start(enrollment)
    waiting = await enrollment.service.find_by_user_code(grant.user_code.lower(), ADDRESS)
    assert (waiting.name, waiting.machine, waiting.address) == ("box", MACHINE, ADDRESS)
    assert await enrollment.service.poll(grant.device_code) == Pending(5.0)
    node = await approve(enrollment, grant, operator, trust=TrustClass.TRUSTED)
    assert enrollment.heard == [NodeChanged(node.id)]
    clock.now += 5
    enrolled = await enrollment.service.poll(grant.device_code)
    assert isinstance(enrolled, Enrolled)
    assert enrolled.node == node
    assert (node.organisation_id, node.public_key, node.machine) == (
        operator.organisation_id,
        PUBLIC,
        MACHINE,
    )
    credential = read_credential(enrolled.credential, enrollment.hub_key.public_key())
    assert (credential.node_id, credential.owner_id, credential.region, credential.trust) == (
        node.id,
        operator.organisation_id,
        "eu-de",
        "trusted",
    )
    assert (credential.hub_id, credential.public_key, credential.sharing) == ("hub_1", PUBLIC, "private")


async def test_the_credential_is_handed_out_once_even_to_two_polls_at_once(enrollment, people, clock):
    grant = await start(enrollment)
    await approve(enrollment, grant, await people.get(Role.OPERATOR))
    answers = await asyncio.gather(*(enrollment.service.poll(grant.device_code) for _ in range(5)))
    assert sum(isinstance(answer, Enrolled) for answer in answers) == 1
    clock.now += 60
    assert await enrollment.service.poll(grant.device_code) == Expired()


async def test_of_many_approvals_at_once_one_counts(enrollment, people, storage):
    grant = await start(enrollment)
    operator = await people.get(Role.OPERATOR)
    results = await asyncio.gather(
        *(approve(enrollment, grant, operator, name=f"box {turn}") for turn in range(5)),
        return_exceptions=True,
    )
    assert sum(isinstance(result, CodeUnknown) for result in results) == 4
    assert len(await storage.nodes.list()) == 1


async def test_an_approval_and_a_refusal_at_once_never_both_count(enrollment, people, storage):
    operator = await people.get(Role.OPERATOR)
    for _ in range(5):
        grant = await start(enrollment)
        before = len(await storage.nodes.list())
        await asyncio.gather(
            approve(enrollment, grant, operator),
            enrollment.service.deny(grant.user_code, operator),
            return_exceptions=True,
        )
        made = len(await storage.nodes.list()) - before
        assert isinstance(await enrollment.service.poll(grant.device_code), Enrolled if made else Denied)


async def test_a_refused_machine_is_told_so(enrollment, people):
    grant = await start(enrollment)
    await enrollment.service.deny(grant.user_code, await people.get(Role.OWNER))
    assert await enrollment.service.poll(grant.device_code) == Denied()


async def test_codes_are_good_for_ten_minutes(enrollment, people, clock):
    grant = await start(enrollment)
    assert grant.expires_in == 600
    clock.now += 600
    assert await enrollment.service.poll(grant.device_code) == Expired()
    with pytest.raises(CodeUnknown):
        await approve(enrollment, grant, await people.get(Role.OPERATOR))
    with pytest.raises(CodeUnknown):
        await enrollment.service.find_by_user_code(grant.user_code, ADDRESS)
    assert await enrollment.service.poll("invented") == Expired()


async def test_polling_too_fast_slows_down_by_five_seconds_each_time(enrollment, clock):
    grant = await start(enrollment)
    assert await enrollment.service.poll(grant.device_code) == Pending(5.0)
    clock.now += 1
    assert await enrollment.service.poll(grant.device_code) == SlowDown(10.0)
    clock.now += 6
    assert await enrollment.service.poll(grant.device_code) == SlowDown(15.0)
    clock.now += 15
    assert await enrollment.service.poll(grant.device_code) == Pending(15.0)
    clock.now += 14.6  # the machine's clock runs a little differently
    assert await enrollment.service.poll(grant.device_code) == Pending(15.0)


async def test_a_code_typed_wrong_too_often_is_not_looked_up_any_more(enrollment, clock):
    grant = await start(enrollment)
    for _ in range(10):
        with pytest.raises(CodeUnknown):
            await enrollment.service.find_by_user_code("BCDF-BCDF", "198.51.100.7")
    with pytest.raises(TooManyAttempts):
        await enrollment.service.find_by_user_code(grant.user_code, "198.51.100.7")
    assert await enrollment.service.find_by_user_code(grant.user_code, ADDRESS)
    clock.now += 599
    grant = await start(enrollment)
    clock.now += 1
    assert await enrollment.service.find_by_user_code(grant.user_code, "198.51.100.7")


async def test_posting_codes_is_no_way_around_the_limit(enrollment, people):
    owner = await people.get(Role.OWNER)
    for _ in range(10):
        with pytest.raises(CodeUnknown):
            await enrollment.service.deny("BCDF-BCDF", owner)
    grant = await start(enrollment)
    with pytest.raises(TooManyAttempts):
        await approve(enrollment, grant, owner)


async def test_a_right_code_is_no_guess(enrollment):
    grant = await start(enrollment)
    for _ in range(30):
        await enrollment.service.find_by_user_code(grant.user_code, ADDRESS)


async def test_machines_that_wait_are_limited_by_address(enrollment, clock):
    for _ in range(20):
        await start(enrollment)
    with pytest.raises(TooManyAttempts):
        await start(enrollment)
    await start(enrollment, address="198.51.100.7")
    clock.now += 601
    await start(enrollment)


async def test_codes_and_tokens_are_nowhere_in_the_database(enrollment, organisation, all_that_is_stored):
    grant = await start(enrollment)
    token = await enrollment.service.create_join_token(organisation.id, region=None)
    found = await all_that_is_stored()
    for secret in (grant.device_code, grant.user_code, grant.user_code.replace("-", ""), token.secret):
        assert secret.encode() not in found
        assert secret not in repr((grant.device_code and replace(grant, user_code=""), token))


@pytest.mark.parametrize("role", [Role.MEMBER, Role.AUDITOR])
async def test_members_may_neither_approve_nor_refuse(enrollment, people, role):
    grant, account = await start(enrollment), await people.get(role)
    with pytest.raises(NotAllowed):
        await approve(enrollment, grant, account)
    with pytest.raises(NotAllowed):
        await enrollment.service.deny(grant.user_code, account)
    assert await enrollment.service.poll(grant.device_code) == Pending(5.0)


async def test_an_owners_region_waits_for_the_operator(enrollment, people):
    node = await approve(enrollment, await start(enrollment), await people.get(Role.OWNER))
    assert (node.region, node.region_confirmed) == ("eu-de", False)
    same = {"name": node.name, "region": node.region, "trust": node.trust, "sharing": node.sharing}
    placed = await enrollment.service.place(node.id, await people.get(Role.OPERATOR), said(**same))
    assert placed.region_confirmed
    owner = await people.get(Role.OWNER)
    kept = await enrollment.service.place(node.id, owner, said(**same | {"name": "new"}))
    assert (kept.name, kept.region_confirmed) == ("new", True)
    moved = await enrollment.service.place(node.id, owner, said(**same | {"region": "eu"}))
    assert not moved.region_confirmed


@pytest.mark.parametrize(
    ("field", "wish"),
    [
        ("region", {"region": "mars"}),
        ("name", {"name": "\n"}),
        ("trust", {"trust": TrustClass.VERIFIED}),
        ("organisations", {"sharing": Sharing(SharingKind.ORGANISATIONS, frozenset({"org_none"}))}),
    ],
)
async def test_an_approval_that_makes_no_sense_leaves_the_machine_waiting(enrollment, people, field, wish):
    grant = await start(enrollment)
    with pytest.raises(InvalidInput) as refused:
        await approve(enrollment, grant, await people.get(Role.OWNER), **wish)
    assert refused.value.field == field
    assert await enrollment.service.find_by_user_code(grant.user_code, ADDRESS)


async def test_another_organisations_node_is_out_of_reach(enrollment, people, storage, make_node):
    node = await make_node()
    others = await storage.organisations.create("Others", now=0.0)
    stranger = await storage.accounts.create(
        others.id, email="eve@others.example", password_hash="-", role=Role.OWNER, now=0.0
    )
    wish = {"name": "mine", "region": None, "trust": node.trust, "sharing": PRIVATE}
    with pytest.raises(NotFound):
        await enrollment.service.place(node.id, stranger, said(**wish))
    assert (await storage.nodes.get(node.id)).name == "box"


async def test_a_change_of_placement_by_two_at_once_loses_no_confirmation_rule(enrollment, people, storage):
    """An owner's stale look never writes back a confirmation that an operator gave to something else."""
    owner, operator = await people.get(Role.OWNER), await people.get(Role.OPERATOR)
    node = await approve(enrollment, await start(enrollment), operator)
    wish = {"name": "n", "trust": node.trust, "sharing": PRIVATE}
    await asyncio.gather(
        *(enrollment.service.place(node.id, owner, said(region="eu-de", **wish)) for _ in range(3)),
        enrollment.service.place(node.id, operator, said(region="eu", **wish)),
    )
    after = await storage.nodes.get(node.id)
    assert (after.region, after.region_confirmed) in {("eu", True), ("eu-de", False)}


async def test_a_change_that_rests_on_what_is_no_more_changes_nothing(enrollment, people, storage):
    owner, operator = await people.get(Role.OWNER), await people.get(Role.OPERATOR)
    node = await approve(enrollment, await start(enrollment), owner)
    seen = rules_seen(node)
    public = PlacementChange(sharing=Sharing(SharingKind.PUBLIC), seen=seen)
    placed = await enrollment.service.place(node.id, owner, public)
    await enrollment.service.place(node.id, owner, PlacementChange(sharing=PRIVATE, seen=rules_seen(placed)))
    narrowed = await storage.nodes.get(node.id)
    await enrollment.service.place(node.id, owner, public)
    assert (await storage.nodes.get(node.id)).sharing == Sharing(SharingKind.PUBLIC), "as it was seen: again"
    for stale in (rules_seen(narrowed), ""):
        with pytest.raises(Outdated):
            await enrollment.service.place(node.id, owner, PlacementChange(name="new", seen=stale))
        with pytest.raises(Outdated):
            await enrollment.service.set_trust(
                node.id, operator, TrustClass.CONFIDENTIAL, reason="seen", seen=stale
            )
    after = await storage.nodes.get(node.id)
    assert (after.name, after.trust) == (node.name, node.trust)


async def test_who_changes_a_node_between_the_look_and_the_write_wins(enrollment, people, storage):
    """Two forms of the same page, sent at once: one is saved, the other told."""
    owner = await people.get(Role.OWNER)
    node = await approve(enrollment, await start(enrollment), owner)
    wishes = [
        PlacementChange(sharing=Sharing(SharingKind.PUBLIC), seen=rules_seen(node)),
        PlacementChange(region="eu-de", says_region=True, seen=rules_seen(node)),
    ]
    done = await asyncio.gather(
        *(enrollment.service.place(node.id, owner, wish) for wish in wishes), return_exceptions=True
    )
    assert sorted(type(each).__name__ for each in done) == ["Node", "Outdated"]


async def test_an_operator_confirms_a_region_by_saying_it_and_not_by_anything_else(enrollment, people):
    node = await approve(enrollment, await start(enrollment), await people.get(Role.OWNER))
    operator = await people.get(Role.OPERATOR)
    change = PlacementChange(name="new", trust=TrustClass.VERIFIED)
    placed = await enrollment.service.place(node.id, operator, change)
    assert (placed.name, placed.trust, placed.region_confirmed) == ("new", TrustClass.VERIFIED, False)
    assert (await enrollment.service.place(node.id, operator, said(region="eu-de"))).region_confirmed
    assert (await enrollment.service.place(node.id, operator, change)).region_confirmed


async def test_revoking_is_told_at_once_and_ends_an_enrollment_not_yet_fetched(enrollment, people):
    grant = await start(enrollment)
    node = await approve(enrollment, grant, await people.get(Role.OPERATOR))
    await enrollment.service.revoke(node.id)
    assert enrollment.heard[-1] == NodeRevoked(node.id)
    assert await enrollment.service.poll(grant.device_code) == Denied()
    with pytest.raises(NotFound):
        await enrollment.service.revoke("node_none")


async def join(enrollment, secret, address=ADDRESS):
    return await enrollment.service.join(secret, PUBLIC, "box", MACHINE, address)


async def test_a_join_token_decides_organisation_and_region_and_nothing_more(enrollment, organisation):
    made = await enrollment.service.create_join_token(organisation.id, region="eu-de", region_confirmed=True)
    enrolled = await join(enrollment, made.secret)
    node = enrolled.node
    assert (node.organisation_id, node.region, node.region_confirmed) == (organisation.id, "eu-de", True)
    assert (node.trust, node.sharing) == (TrustClass.COMMUNITY, PRIVATE)
    assert read_credential(enrolled.credential, enrollment.hub_key.public_key()).node_id == node.id
    with pytest.raises(JoinTokenInvalid):
        await join(enrollment, made.secret)


async def test_uses_are_counted_however_many_come_at_once(enrollment, organisation, storage):
    made = await enrollment.service.create_join_token(organisation.id, region=None, uses=3)
    results = await asyncio.gather(*(join(enrollment, made.secret) for _ in range(8)), return_exceptions=True)
    assert sum(isinstance(result, Enrolled) for result in results) == 3
    assert len(await storage.nodes.list()) == 3
    assert [token.uses for token in await storage.join_tokens.list()] == [3]


async def test_expired_revoked_and_invented_tokens_look_alike(enrollment, organisation, storage, clock):
    expired = await enrollment.service.create_join_token(organisation.id, region=None, expires_in_s=60)
    revoked = await enrollment.service.create_join_token(organisation.id, region=None, expires_in_s=600)
    await storage.join_tokens.revoke(revoked.token.id, now=clock())
    clock.now += 60
    for secret in (expired.secret, revoked.secret, "pjt-invented", expired.secret[:-1] + "x"):
        with pytest.raises(JoinTokenInvalid):
            await join(enrollment, secret)


async def test_guessing_join_tokens_is_limited(enrollment, organisation):
    made = await enrollment.service.create_join_token(organisation.id, region=None)
    for _ in range(20):
        with pytest.raises(JoinTokenInvalid):
            await join(enrollment, "pjt-guess", address="198.51.100.7")
    with pytest.raises(TooManyAttempts):
        await join(enrollment, made.secret, address="198.51.100.7")
    assert await join(enrollment, made.secret)


@pytest.mark.parametrize(
    ("field", "wish"),
    [
        ("region", {"region": "mars"}),
        ("uses", {"uses": 0}),
        ("expires", {"expires_in_s": 0.0}),
        ("name", {"name": ""}),
    ],
)
async def test_a_join_token_that_makes_no_sense_is_not_made(enrollment, organisation, field, wish):
    with pytest.raises(InvalidInput) as refused:
        await enrollment.service.create_join_token(organisation.id, **{"region": None} | wish)
    assert refused.value.field == field


@pytest.mark.parametrize(
    ("field", "key", "machine"),
    [("public_key", "AAAA", MACHINE), ("public_key", "é", MACHINE), ("machine", PUBLIC, {"x": "y" * 9000})],
    ids=["short", "letters", "talkative"],
)
async def test_a_machine_that_talks_nonsense_is_refused(enrollment, field, key, machine):
    with pytest.raises(InvalidInput) as refused:
        await enrollment.service.start_device(key, "box", machine, ADDRESS)
    assert refused.value.field == field


@pytest.mark.parametrize(("wish", "name"), [("", "node"), (" a\tb\n", "ab"), ("x" * 300, "x" * 100)])
async def test_a_machines_wish_for_a_name_is_made_fit(enrollment, wish, name):
    grant = await enrollment.service.start_device(PUBLIC, wish, MACHINE, ADDRESS)
    assert (await enrollment.service.find_by_user_code(grant.user_code, ADDRESS)).name == name


async def test_a_node_may_leave_and_only_by_its_own_key(enrollment, make_node, clock, storage):
    node = await make_node(public_key=PUBLIC)
    claims = {"sub": node.id, "aud": "hub_1", "iat": int(clock()), "exp": int(clock()) + 60}
    forged = Ed25519PrivateKey.generate()
    for key, body in (
        (forged, claims),
        (KEY, claims | {"sub": "node_none"}),
        (KEY, claims | {"aud": "hub_2"}),
        (KEY, claims | {"iat": 10**400, "exp": 10**400}),
    ):
        with pytest.raises(SignatureRefused):
            await enrollment.service.leave(
                jwt.encode(body, key, algorithm="EdDSA", headers={"typ": "porten-leave+jwt"})
            )
    assert (await storage.nodes.get(node.id)).revoked_at is None
    await enrollment.service.leave(
        jwt.encode(claims, KEY, algorithm="EdDSA", headers={"typ": "porten-leave+jwt"})
    )
    assert (await storage.nodes.get(node.id)).revoked_at == clock()
    assert enrollment.heard == [NodeRevoked(node.id)]


async def test_finished_enrollments_are_cleared_away(enrollment, storage, clock):
    grant = await start(enrollment)
    clock.now += 600 + 3601
    await start(enrollment)
    hashed = enrollment.service._codes.hash(grant.device_code)
    assert await storage.enrollments.by_device_code(hashed) is None
