"""No act without its event, no event without its act: each that the storage knows."""

import re
from pathlib import Path

import pytest

import hub.storage
from hub.acting import Actor, acting_as
from hub.keys import change_key, issue_key, rotate_key
from hub.policy import PRIVATE, Fleet, TrustClass
from hub.quotas import Allowance
from hub.receipts import policy_hash
from hub.storage.records import Role
from hub.storage.repositories import Storage
from tests.integration.hub.storage.audit_log import NOW, check, log_of, public, since


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

    async def account_session_ended(self, on):
        account = await on.session()
        on.mark()
        await on.storage.sessions.end(account.id, "s" * 64)
        await on.storage.sessions.end(account.id, "s" * 64)
        return account.id

    async def account_other_sessions_ended(self, on):
        account = await on.session()
        on.mark()
        await on.storage.sessions.end_others(account.id, "t" * 64)
        await on.storage.sessions.end_others(account.id, "t" * 64)
        return account.id

    async def account_signed_out_everywhere(self, on):
        account = await on.session()
        on.mark()
        await on.storage.members.sign_out(account.id, by=None)
        return account.id

    async def account_role_changed(self, on):
        account = await on.people.get(Role.MEMBER)
        on.mark()
        await on.storage.members.change_role(account.id, Role.AUDITOR, by=None)
        await on.storage.members.change_role(account.id, Role.AUDITOR, by=None)
        return account.id

    async def account_removed(self, on):
        account = await on.people.get(Role.MEMBER)
        on.mark()
        await on.storage.members.remove(account.id, by=None)
        return account.id

    async def invitation_created(self, on):
        owner = await on.people.get(Role.OWNER)
        on.mark()
        return (await on.invite(owner)).id

    async def invitation_withdrawn(self, on):
        owner = await on.people.get(Role.OWNER)
        made = await on.invite(owner)
        on.mark()
        await on.storage.members.withdraw(made.id, by=owner.id)
        return made.id

    async def account_joined(self, on):
        await on.invite(await on.people.get(Role.OWNER))
        on.mark()
        joined = await on.storage.members.accept("i" * 64, email="n@x.example", password_hash="-", now=NOW)
        return joined.id

    async def account_second_step_on(self, on):
        account = await on.people.get(Role.OWNER)
        await on.storage.second_steps.begin(account.id, "sealed", now=NOW)
        on.mark()
        for _ in range(2):
            await on.storage.second_steps.confirm(
                account.id, sealed_secret="sealed", step=1, code_hashes=["c" * 64], now=NOW
            )
        return account.id

    async def account_second_step_off(self, on):
        account = await on.second_step()
        on.mark()
        await on.storage.second_steps.switch_off(account.id)
        await on.storage.second_steps.switch_off(account.id)
        return account.id

    async def account_second_step_reset(self, on):
        account = await on.second_step()
        on.mark()
        assert await on.storage.members.reset_second_step(account.id, by=None)
        assert not await on.storage.members.reset_second_step(account.id, by=None)
        return account.id

    async def account_recovery_code_used(self, on):
        account = await on.second_step()
        on.mark()
        assert await on.storage.second_steps.spend_code(account.id, "c" * 64)
        assert not await on.storage.second_steps.spend_code(account.id, "c" * 64)
        return account.id

    async def account_recovery_codes_replaced(self, on):
        account = await on.second_step()
        on.mark()
        await on.storage.second_steps.replace_codes(account.id, ["d" * 64])
        return account.id

    async def account_provisioned(self, on):
        made = await on.storage.identities.provision(
            on.organisation.id,
            email="n@x.example",
            role=Role.MEMBER,
            issuer="https://x",
            subject="n",
            now=1.0,
        )
        return made.id

    async def account_identity_linked(self, on):
        account = await on.people.get(Role.OWNER)
        on.mark()
        await on.storage.identities.link(account.id, "https://x", "n", now=NOW)
        return account.id

    async def account_identity_unlinked(self, on):
        account = await on.people.get(Role.OWNER)
        await on.storage.identities.link(account.id, "https://x", "n", now=NOW)
        on.mark()
        await on.storage.identities.unlink(account.id, "https://x")
        await on.storage.identities.unlink(account.id, "https://x")
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

    async def admin_token_created(self, on):
        return (await on.admin_token()).id

    async def admin_token_revoked(self, on):
        token = await on.admin_token()
        on.mark()
        await on.storage.admin_tokens.revoke(token.id, now=NOW)
        await on.storage.admin_tokens.revoke(token.id, now=NOW)
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

    async def node_drained(self, on):
        node = await on.make_node()
        on.mark()
        await on.storage.nodes.drain(node.id, now=NOW)
        await on.storage.nodes.drain(node.id, now=NOW + 1)
        return node.id

    async def node_resumed(self, on):
        node = await on.make_node()
        await on.storage.nodes.drain(node.id, now=NOW)
        on.mark()
        await on.storage.nodes.resume(node.id)
        await on.storage.nodes.resume(node.id)
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

    async def region_changed(self, on):
        await on.storage.regions.add("us", None, "United States")
        on.mark()
        await on.storage.regions.change("us", parent=None, name="America")
        return "us"

    async def region_removed(self, on):
        await on.storage.regions.add("us", None, "United States")
        on.mark()
        await on.storage.regions.remove("us")
        return "us"

    async def organisation_renamed(self, on):
        await on.storage.organisations.rename(on.organisation.id, "Other")
        return on.organisation.id

    async def hub_created(self, on):
        return await on.storage.settings.hub_id()

    async def hub_key_changed(self, on):
        key = public()
        assert await on.storage.settings.claim(public()) != key
        on.mark()
        await on.storage.settings.replace_hub_key(key)
        await on.storage.settings.replace_hub_key(key)
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


def action_of(name):
    subject, act = re.fullmatch(r"(admin_token|join_token|[a-z]+)_(.+)", name).groups()
    return f"{subject}.{act}"


class Scene:
    def __init__(self, storage, organisation, people, make_node, enrollment):
        self.storage, self.organisation, self.people = storage, organisation, people
        self.make_node, self.enrollment = make_node, enrollment

    def mark(self):
        """From here on the act itself is done; what came before made it possible."""

    async def session(self):
        account = await self.people.get(Role.OWNER)
        await self.storage.sessions.create(
            "s" * 64, account.id, csrf_token="-", expires_at=NOW + 9, now=NOW, address="192.0.2.1", way="x"
        )
        return account

    async def second_step(self):
        account = await self.people.get(Role.OWNER)
        await self.storage.second_steps.begin(account.id, "sealed", now=NOW)
        await self.storage.second_steps.confirm(
            account.id, sealed_secret="sealed", step=1, code_hashes=["c" * 64], now=NOW
        )
        return account

    async def invite(self, by):
        return await self.storage.members.invite(
            by.id, name="Ada", role=Role.MEMBER, token_hash="i" * 64, now=NOW, expires_at=NOW + 9
        )

    async def token(self):
        return await self.enrollment.service.create_join_token(self.organisation.id, region=None)

    async def admin_token(self):
        wish = {"name": "ci", "prefix": "padm-", "token_hash": "0" * 64, "role": Role.ADMIN}
        return await self.storage.admin_tokens.create(
            self.organisation.id, **wish, expires_at=NOW + 60, now=NOW
        )


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
    tell = scene.storage.database.tell

    async def counted(connection, action, subject, **more):
        sequences.append(len(marks))
        await tell(connection, action, subject, **more)

    monkeypatch.setattr(scene.storage.database, "tell", counted)
    monkeypatch.setattr(scene, "mark", mark)
    subject = await getattr(Acts(), name)(scene)
    written = await since(scene.storage, start)
    assert len(written) == len(sequences)
    events = [event for event, after in zip(written, sequences, strict=True) if after == len(marks)]
    action = action_of(name)
    assert [(event.action, event.subject) for event in events][-1] == (action, subject)
    assert len(events) == 1 or name == "account_created"
    assert await check(scene.storage) == []


def test_every_action_of_the_storage_is_tried_here():
    source = "".join(path.read_text() for path in Path(hub.storage.__path__[0]).glob("*.py"))
    told = set(re.findall(r'\._?tell\(\s*connection,\s*"([a-z_.]+)"', source))
    tried = {action_of(name) for name in ACTS}
    apart = {"schema.migrated", "audit.pruned", "address.erased", "hub.restored"}  # each in a test of its own
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
