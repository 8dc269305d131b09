"""No act without its event, no event without its act, one chain however many processes write it."""

import asyncio
import re
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from sqlalchemy import text

import hub.storage
from hub.acting import Actor, acting_as
from hub.audit import Problem
from hub.errors import AlreadyExists, NotFound
from hub.evidence import LogCheck
from hub.keys import change_key, issue_key, rotate_key
from hub.policy import PRIVATE, Fleet, TrustClass
from hub.quotas import Allowance
from hub.receipts import policy_hash
from hub.sealing import EVERY_EVENTS, EVERY_S, Sealer
from hub.storage.chain import Act
from hub.storage.records import Role
from hub.storage.repositories import Storage
from tunnel.identity import encode_public_key

NOW = 1_700_000_000.0
KEY = Ed25519PrivateKey.generate()


def public():
    return encode_public_key(Ed25519PrivateKey.generate().public_key())


async def log_of(storage):
    return [event async for event in storage.audit.chain()]


async def since(storage, sequence):
    return [event for event in await log_of(storage) if event.sequence > sequence]


@pytest.fixture
def sealer(clock):
    return Sealer(KEY, "hub_1", clock)


async def check(storage, *elsewhere):
    """What a verification finds."""
    tokens = [*await storage.audit.checkpoints(), *elsewhere]
    looked = LogCheck("hub_1", tokens, [KEY.public_key()], await storage.audit.head())

    async def head_after():
        return (await storage.audit.head())[0]

    return await looked.over(storage.audit.chain(), head_after)


# --- every act, with what is told of it


async def asked(storage, enrollment):
    return await enrollment.service.start_device(public(), "attic", {"hostname": "attic"}, "192.0.2.7")


class Acts:
    """Every act that the storage knows; each gives the subject that its event must name."""

    async def organisation_created(self, on):
        return (await on.storage.organisations.create("Other", now=NOW)).id

    async def account_created(self, on):
        return (await on.people.get(Role.ADMIN)).id

    async def account_password_changed(self, on):
        account = await on.people.get(Role.OWNER)
        on.mark()
        await on.storage.accounts.change_password(account.id, "-")
        return account.id

    async def account_signed_in(self, on):
        account = await on.people.get(Role.OWNER)
        on.mark()
        await on.storage.sessions.create("s" * 64, account.id, csrf_token="-", expires_at=NOW + 9, now=NOW)
        return account.id

    async def account_signed_out(self, on):
        account = await on.people.get(Role.OWNER)
        await on.storage.sessions.create("s" * 64, account.id, csrf_token="-", expires_at=NOW + 9, now=NOW)
        on.mark()
        await on.storage.sessions.delete("s" * 64)
        return account.id

    async def key_created(self, on):
        return (await issue_key(on.storage, on.organisation.id, name="app", now=NOW)).key.id

    async def key_revoked(self, on):
        key = (await issue_key(on.storage, on.organisation.id, name="app", now=NOW)).key
        on.mark()
        await on.storage.keys.revoke(key.id, now=NOW)
        await on.storage.keys.revoke(key.id, now=NOW)  # which ends nothing more
        return key.id

    async def key_changed(self, on):
        key = (await issue_key(on.storage, on.organisation.id, name="app", now=NOW)).key
        on.mark()
        await change_key(
            on.storage,
            key,
            name="app",
            now=NOW,
            fleet=Fleet.ANY,
            regions=(),
            minimum_trust=TrustClass.VERIFIED,
            models=None,
            expires_at=None,
            limits=Allowance(requests_per_minute=5),
        )
        return key.id

    async def key_rotated(self, on):
        key = (await issue_key(on.storage, on.organisation.id, name="app", now=NOW)).key
        on.mark()
        await rotate_key(on.storage, key, now=NOW, overlap_s=60)
        return key.id

    async def organisation_limits_changed(self, on):
        await on.storage.organisations.set_limits(on.organisation.id, Allowance(monthly_tokens=5))
        return on.organisation.id

    async def join_token_created(self, on):
        return (await on.token()).token.id

    async def join_token_revoked(self, on):
        token = (await on.token()).token
        on.mark()
        await on.storage.join_tokens.revoke(token.id, now=NOW)
        await on.storage.join_tokens.revoke(token.id, now=NOW)
        return token.id

    async def node_created(self, on):
        return (await on.make_node()).id

    async def node_changed(self, on):
        node = await on.make_node()
        on.mark()
        await on.storage.nodes.replace_placement(
            node, name="b", region=None, region_confirmed=False, trust=TrustClass.COMMUNITY, sharing=PRIVATE
        )
        return node.id

    async def node_key_announced(self, on):
        node = await on.make_node()
        on.mark()
        await on.storage.nodes.set_next_key(node, public(), expires_at=NOW + 60)
        return node.id

    async def node_key_changed(self, on):
        node, key = await on.make_node(), public()
        await on.storage.nodes.set_next_key(node, key, expires_at=NOW + 60)
        await on.storage.nodes.begin_session(node.id, node.public_key, now=NOW)
        on.mark()
        await on.storage.nodes.begin_session(node.id, key, now=NOW)
        await on.storage.nodes.begin_session(node.id, key, now=NOW)  # each connection is no act
        return node.id

    async def node_revoked(self, on):
        node = await on.make_node()
        on.mark()
        await on.storage.nodes.revoke(node.id, now=NOW)
        await on.storage.nodes.revoke(node.id, now=NOW)
        return node.id

    async def enrollment_approved(self, on):
        grant = await asked(on.storage, on.enrollment)
        owner = await on.people.get(Role.OWNER)
        on.mark()
        node = await on.enrollment.service.approve(grant.user_code, owner, name="attic", region=None)
        return node.id

    async def enrollment_denied(self, on):
        grant = await asked(on.storage, on.enrollment)
        owner = await on.people.get(Role.OWNER)
        waiting = await on.enrollment.service.find_by_user_code(grant.user_code, "here")
        on.mark()
        await on.enrollment.service.deny(grant.user_code, owner)
        return waiting.id

    async def node_enrolled(self, on):
        grant = await asked(on.storage, on.enrollment)
        owner = await on.people.get(Role.OWNER)
        node = await on.enrollment.service.approve(grant.user_code, owner, name="attic", region=None)
        on.mark()
        await on.enrollment.service.poll(grant.device_code)
        await on.enrollment.service.poll(grant.device_code)
        return node.id

    async def enrollment_joined(self, on):
        secret = (await on.token()).secret
        on.mark()
        enrolled = await on.enrollment.service.join(secret, public(), "attic", {}, "192.0.2.7")
        return enrolled.node.id

    async def region_added(self, on):
        await on.storage.regions.add("us", None, "United States")
        return "us"

    async def hub_created(self, on):
        return await on.storage.settings.hub_id()

    async def hub_key_changed(self, on):
        key = public()
        await on.storage.settings.note_hub_key(key)
        await on.storage.settings.note_hub_key(key)
        return key

    async def account_erased(self, on):
        account = await on.people.get(Role.OWNER)
        on.mark()
        await on.storage.erasure.account(account)
        return account.id

    async def node_erased(self, on):
        node = await on.make_node()
        on.mark()
        await on.storage.erasure.node(node)
        return node.id

    async def organisation_erased(self, on):
        await on.storage.erasure.organisation(on.organisation)
        return on.organisation.id


ACTS = sorted(name for name in vars(Acts) if not name.startswith("_"))


class Scene:
    def __init__(self, storage, organisation, people, make_node, enrollment):
        self.storage, self.organisation, self.people = storage, organisation, people
        self.make_node, self.enrollment = make_node, enrollment

    def mark(self):
        """From here on the act itself is done; what came before made it possible."""

    async def token(self):
        return await self.enrollment.service.create_join_token(self.organisation.id, region=None)


@pytest.fixture
def scene(storage, organisation, people, make_node, enrollment):
    return Scene(storage, organisation, people, make_node, enrollment)


@pytest.mark.parametrize("name", ACTS)
async def test_an_act_has_exactly_its_event(scene, name, monkeypatch):
    start = (await scene.storage.audit.head())[0]

    def mark():
        marks.append(None)

    marks: list[None] = []
    sequences: list[int] = []
    tell = scene.storage._database.tell

    async def counted(connection, action, subject, **more):
        sequences.append(len(marks))
        await tell(connection, action, subject, **more)

    monkeypatch.setattr(scene.storage._database, "tell", counted)
    monkeypatch.setattr(scene, "mark", mark)
    subject = await getattr(Acts(), name)(scene)
    written = await since(scene.storage, start)
    assert len(written) == len(sequences)
    events = [event for event, after in zip(written, sequences, strict=True) if after == len(marks)]
    action = name.replace("_", ".", 1)
    action = action.replace("join.token_", "join_token.")
    assert [(event.action, event.subject) for event in events][-1] == (action, subject)
    assert len(events) == 1 or name == "account_created"
    assert await check(scene.storage) == []


def test_every_action_of_the_storage_is_tried_here():
    source = "".join(path.read_text() for path in Path(hub.storage.__path__[0]).glob("*.py"))
    told = set(re.findall(r'\.tell\(\s*connection,\s*"([a-z_.]+)"', source))
    tried = {name.replace("_", ".", 1).replace("join.token_", "join_token.") for name in ACTS}
    apart = {"schema.migrated", "audit.pruned", "address.erased"}  # each in a test of its own
    assert told - apart == tried


async def test_an_event_says_who_what_and_whose(storage, organisation):
    owner = Actor("acct_1", organisation.id, address="192.0.2.1")
    with acting_as(owner):
        issued = await issue_key(
            storage, organisation.id, name="Anna's", now=NOW, fleet=Fleet.SHARED, regions=["eu-de"]
        )
    event = (await log_of(storage))[-1]
    facts = event.facts()
    assert (event.actor, event.organisation_id) == ("acct_1", organisation.id)
    assert (facts["fleet"], facts["regions"], facts["models"]) == ("shared", ["eu-de"], None)
    assert facts["policy_hash"] == policy_hash(issued.key.policy, None)
    assert await storage.audit.names([facts["address"]]) == {facts["address"]: "192.0.2.1"}
    assert "Anna" not in event.details
    assert issued.secret not in event.details


async def test_migrating_is_an_act(database_url):
    async with await Storage.open(database_url) as fresh:
        await fresh.migrate()
        (event,) = await log_of(fresh)
        await fresh.migrate()
        assert (event.action, event.facts()) == ("schema.migrated", {"before": None})
        assert await log_of(fresh) == [event]


# --- together or not at all


async def test_an_act_that_cannot_be_told_does_not_happen(storage, organisation, monkeypatch):
    async def broken(*_args, **_more):
        raise OSError("no")

    head = await storage.audit.head()
    monkeypatch.setattr("hub.storage.engine.append", broken)
    with pytest.raises(OSError, match="no"):
        await issue_key(storage, organisation.id, name="app", now=NOW)
    with pytest.raises(OSError, match="no"):
        await storage.regions.add("us", None, "United States")
    assert await storage.keys.list() == []
    assert "us" not in await storage.regions.tree()
    assert await storage.audit.head() == head


async def test_an_act_that_fails_is_not_told(storage, organisation):
    head = await storage.audit.head()
    with pytest.raises(AlreadyExists):
        await storage.organisations.create(organisation.name, now=NOW)
    with pytest.raises(NotFound):
        await storage.keys.revoke("key_none", now=NOW)
    with pytest.raises(NotFound):
        await storage.nodes.revoke("node_none", now=NOW)
    await storage.join_tokens.revoke("jt_none", now=NOW)
    await storage.sessions.delete("none")
    await storage.accounts.change_password("acct_none", "-")
    assert await storage.audit.head() == head


# --- many at once

WRITER = textwrap.dedent("""
    import asyncio, sys
    from hub.acting import Actor, act_as
    from hub.keys import change_key, issue_key, rotate_key
    from hub.storage.repositories import Storage

    async def main(url, organisation, name):
        act_as(Actor(name, organisation, address=name))
        async with await Storage.open(url) as storage:
            for number in range(25):
                key = (await issue_key(storage, organisation, name=f"{name} {number}", now=1.0)).key
                await storage.keys.revoke(key.id, now=2.0)

    asyncio.run(main(*sys.argv[1:]))
""")


async def test_many_processes_write_one_chain(storage, organisation, database_url):
    start = (await storage.audit.head())[0]
    names = [f"writer_{number}" for number in range(4)]
    children = [
        subprocess.Popen([sys.executable, "-c", WRITER, database_url, organisation.id, name])
        for name in names
    ]
    tasks = [issue_key(storage, organisation.id, name=str(number), now=NOW) for number in range(20)]
    await asyncio.gather(*tasks)
    assert [await asyncio.to_thread(child.wait) for child in children] == [0] * 4
    events = await since(storage, start)
    assert [event.sequence for event in events] == list(range(start + 1, start + 1 + 4 * 50 + 20))
    assert await check(storage) == []
    for name in names:
        mine = [event for event in events if event.actor == name]
        assert [event.action for event in mine] == ["key.created", "key.revoked"] * 25
        assert len({event.facts()["address"] for event in mine}) == 1, "one pseudonym for one address"


# --- what was meddled with in the database itself


@pytest.fixture
async def sealed(storage, organisation, sealer):
    for number in range(5):
        await issue_key(storage, organisation.id, name=str(number), now=NOW)
    return await sealer.seal(storage.audit)


async def sql(storage, statement):
    async with storage._engine.begin() as connection:
        await connection.execute(text(statement))


@pytest.mark.parametrize(
    ("statement", "problem"),
    [
        ("UPDATE audit_events SET actor = 'hub' || actor WHERE sequence = 3", Problem.EDITED),
        ("UPDATE audit_events SET time_ms = time_ms + 1 WHERE sequence = 3", Problem.EDITED),
        ("UPDATE audit_events SET details = details || ' ' WHERE sequence = 3", Problem.EDITED),
        ("UPDATE audit_events SET organisation_id = NULL WHERE sequence > 5", Problem.EDITED),
        ("UPDATE audit_events SET hash = previous_hash WHERE sequence = 4", Problem.EDITED),
        ("DELETE FROM audit_events WHERE sequence = 3", Problem.MISSING),
        ("DELETE FROM audit_events WHERE sequence < 3", Problem.MISSING),
        ("DELETE FROM audit_events WHERE sequence > 5", Problem.CUT),
        ("UPDATE audit_events SET sequence = 99 WHERE sequence = 3", Problem.MISSING),
        ("UPDATE audit_head SET sequence = 3", Problem.HEAD),
        ("UPDATE audit_checkpoints SET token = token || 'x'", Problem.CHECKPOINT),
    ],
)
async def test_what_is_done_to_the_database_is_found(storage, sealed, statement, problem):
    assert await check(storage) == []
    await sql(storage, statement)
    assert problem in {finding.problem for finding in await check(storage)}


async def test_an_end_that_was_cut_off_cleanly_shows_against_a_checkpoint_kept_elsewhere(storage, sealed):
    async with storage._engine.begin() as connection:
        await connection.execute(text("DELETE FROM audit_events WHERE sequence > 5"))
        await connection.execute(text("DELETE FROM audit_checkpoints"))
        await connection.execute(
            text(
                "UPDATE audit_head SET sequence = 5, "
                "hash = (SELECT hash FROM audit_events WHERE sequence = 5)"
            )
        )
    assert await check(storage) == []
    (finding,) = await check(storage, sealed)
    assert finding.problem is Problem.CUT


# --- seals and pruning


async def test_a_checkpoint_is_due_after_so_many_events_or_so_much_time(storage, clock, sealer, caplog):
    caplog.set_level("INFO")
    await sealer.seal_if_due(storage.audit)
    first = await storage.audit.last_checkpoint()
    assert first[0] == (await storage.audit.head())[0]
    await storage.regions.add("us", None, "US")
    await sealer.seal_if_due(storage.audit)
    assert await storage.audit.last_checkpoint() == first, "not yet"
    clock.now += EVERY_S
    await sealer.seal_if_due(storage.audit)
    assert (await storage.audit.last_checkpoint())[0] == first[0] + 1
    clock.now += EVERY_S
    await sealer.seal_if_due(storage.audit)
    assert (await storage.audit.last_checkpoint())[0] == first[0] + 1, "nothing has happened"
    acts = [Act(action="a", actor=Actor("hub"), subject="", at=NOW)] * EVERY_EVENTS
    await storage.audit.add("batch", acts)
    await sealer.seal_if_due(storage.audit)
    tokens = await storage.audit.checkpoints()
    assert len(tokens) == 3
    logged = [record for record in caplog.records if getattr(record, "event", "") == "audit.checkpoint"]
    assert [record.token for record in logged] == tokens, "a collector of logs has every one"
    assert await check(storage) == []


async def test_pruning_leaves_a_root_that_the_rest_is_verified_from(database_url, clock, sealer):
    async with await Storage.open(database_url, clock) as storage:
        await storage.migrate()
        for number in range(6):
            clock.now = NOW + number
            await storage.regions.add(f"r{number}", None, "R")
        await sealer.seal(storage.audit)
        elsewhere = await storage.audit.checkpoints()
        await sealer.prune(storage.audit, before=NOW + 3)
        left = await log_of(storage)
        assert [event.subject for event in left] == ["r3", "r4", "r5", "4"]
        assert (left[-1].action, left[-1].facts()["events"]) == ("audit.pruned", 4)
        assert await check(storage, *elsewhere) == []
        await sql(storage, f"DELETE FROM audit_events WHERE sequence = {left[0].sequence}")
        assert Problem.MISSING in {finding.problem for finding in await check(storage)}


async def test_pruning_everything_leaves_the_event_that_says_so(database_url, clock, sealer):
    async with await Storage.open(database_url, clock) as storage:
        await storage.migrate()
        await sealer.prune(storage.audit, before=NOW + 1)
        (event,) = await log_of(storage)
        assert (event.sequence, event.action) == (2, "audit.pruned")
        assert await check(storage) == []
        await sealer.prune(storage.audit, before=NOW - 1)
        assert await log_of(storage) == [event], "what is not old enough stays"


# --- what a spool gives


async def test_a_batch_counts_once(storage):
    acts = [Act(action="request.refused", actor=Actor("key_1", "org_1"), subject="key_1", at=NOW)] * 2
    start = (await storage.audit.head())[0]
    for _ in range(3):
        await storage.audit.add("run-1.0", acts)
    await storage.audit.add("run-2.0", acts)
    assert [event.batch for event in await since(storage, start)] == ["run-1.0"] * 2 + ["run-2.0"] * 2
    assert await check(storage) == []


async def test_pages_are_by_organisation_action_and_place(storage, organisation):
    other = await storage.organisations.create("Other", now=NOW)
    for number in range(5):
        key = (await issue_key(storage, organisation.id, name=str(number), now=NOW)).key
        await issue_key(storage, other.id, name=str(number), now=NOW)
        await storage.keys.revoke(key.id, now=NOW)
    page = await storage.audit.page(organisation.id, actions=["key.revoked"], limit=3)
    assert [event.action for event in page] == ["key.revoked"] * 3
    rest = await storage.audit.page(organisation.id, actions=["key.revoked"], before=page[-1].sequence)
    assert len(rest) == 2
    assert {event.organisation_id for event in page + rest} == {organisation.id}
    assert {event.organisation_id for event in await storage.audit.page()} == {
        organisation.id,
        other.id,
        None,
    }


async def test_names_of_another_organisation_are_not_told(storage, organisation, people, make_node):
    owner, node = await people.get(Role.OWNER), await make_node(name="attic")
    ids = [owner.id, node.id, organisation.id]
    assert len(await storage.audit.names(ids)) == 3
    assert await storage.audit.names(ids, organisation.id) == {
        owner.id: owner.email,
        node.id: "attic",
        organisation.id: organisation.name,
    }
    assert await storage.audit.names(ids, "org_other") == {}
