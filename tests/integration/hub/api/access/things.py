"""What has to be there for a request of the table to be taken: made for it, wherever it would use it up.

Owns, for each route that needs something, what makes it: what stands in the address then, in the form, and
in the cookies of a browser that went the way before it.
"""

import base64
import os
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from urllib.parse import parse_qsl, urlsplit

import httpx
from cryptography.hazmat.primitives.hashes import SHA1
from cryptography.hazmat.primitives.twofactor.totp import TOTP

from hub.placement import rules_seen
from hub.portal.security import csrf_token, new_token
from hub.receipts import policy_hash
from hub.storage.records import Account, Role
from tests.integration.hub.api.access.rules import HOME

PASSWORD = "correct horse battery"


@dataclass(frozen=True)
class Needed:
    """What a request brings beside what its row says."""

    values: dict[str, str] = field(default_factory=dict)
    body: dict[str, str] = field(default_factory=dict)
    cookies: dict[str, str] = field(default_factory=dict)
    query: dict[str, str] = field(default_factory=dict)


async def a_node(world, _account):
    return Needed({"node_id": (await world.make_node()).id})


async def a_node_on_drain(world, _account):
    node = await world.make_node()
    await world.bench.hub.storage.nodes.drain(node.id, now=time.time())
    return Needed({"node_id": node.id})


async def a_key(world, _account):
    return Needed({"key_id": (await world.make_key()).id})


async def a_node_that_was_looked_at(world, _account):
    node = await world.make_node()
    return Needed({"node_id": node.id}, {"seen": rules_seen(node)})


async def a_key_that_was_looked_at(world, _account):
    key = await world.make_key()
    return Needed({"key_id": key.id}, {"seen": policy_hash(key.policy, key.models)})


async def a_region(world, _account):
    code = f"r{next(world.numbers)}"
    await world.bench.hub.storage.regions.add(code, None, code)
    return Needed({"code": code})


async def a_new_region(world, _account):
    code = f"r{next(world.numbers)}"
    return Needed(body={"code": code, "name": code})


async def a_new_organisation(world, _account):
    return Needed(body={"name": f"Org {next(world.numbers)}"})


async def another_ceiling(world, _account):
    return Needed(body={"name": HOME, "concurrent_requests": f"{1000 + next(world.numbers)}"})


async def a_waiting_machine(world, _account):
    key = base64.urlsafe_b64encode(os.urandom(32)).decode().rstrip("=")
    grant = await world.bench.hub.enrollment.start_device(key, "a", {}, f"{next(world.numbers)}")
    return Needed({"user_code": grant.user_code})


async def a_machines_code(world, account):
    return Needed(body=(await a_waiting_machine(world, account)).values)


async def a_member(world, _account):
    return Needed({"account_id": (await world.account(Role.MEMBER, world.homes[HOME])).id})


async def a_member_with_a_second_step(world, _account):
    account = await world.account(Role.MEMBER, world.homes[HOME])
    await world.bench.hub.second_step.confirm(account, await _begun(world, account))
    return Needed({"account_id": account.id})


async def a_new_member(world, _account):
    return Needed(body={"email": f"{next(world.numbers)}@a.example", "password": PASSWORD})


async def an_invitation(world, _account):
    made = await world.bench.hub.members.invite(world.inviter.id, name="a", role=Role.MEMBER)
    words = {"email": f"{next(world.numbers)}@a.example", "password": PASSWORD, "again": PASSWORD}
    return Needed({"token": made.token, "invitation_id": made.invitation.id}, words)


async def the_password(_world, account):
    return Needed(body={"email": account.email, "present": PASSWORD, "password": PASSWORD, "again": PASSWORD})


async def another_session(world, account):
    other = await world.session(account)
    return Needed({"reference": other.session})


async def a_secret_to_confirm(world, account):
    return Needed(body={"code": await _begun(world, account)})


async def a_second_step(world, account):
    codes = await world.bench.hub.second_step.confirm(account, await _begun(world, account))
    return Needed(body={"present": PASSWORD, "code": codes[0]})


async def somebody_who_owes_a_code(world, _account):
    account = await world.account(Role.MEMBER, world.homes[HOME])
    step = await a_second_step(world, account)
    visit = new_token()
    form = {"email": account.email, "password": PASSWORD, "csrf_token": csrf_token(visit)}
    answer = await world.browse("POST", "/login", {"porten-visit": visit}, data=form)
    return Needed(body={"code": step.body["code"]}, cookies={"porten-step": answer.cookies["porten-step"]})


async def somebody_from_the_provider(world, _account):
    going = await world.browse("GET", "/login/single-sign-on", {})
    async with httpx.AsyncClient(trust_env=False, timeout=20) as there:
        back = await there.get(going.headers["location"])
    query = dict(parse_qsl(urlsplit(back.headers["location"]).query))
    return Needed(cookies={"porten-sso": going.cookies["porten-sso"]}, query=query)


async def _begun(world, account: Account) -> str:
    """Begin a second step, and say what an app shows."""
    enrolment = await world.bench.hub.second_step.begin(account)
    secret = base64.b32decode(enrolment.text.replace(" ", ""))
    return TOTP(secret, 6, SHA1(), 30).generate(time.time()).decode()


MAKERS: dict[str, Callable[..., Awaitable[Needed]]] = {
    "GET /admin/v1/enrollments/{user_code}": a_waiting_machine,
    "POST /admin/v1/enrollments/{user_code}/approve": a_waiting_machine,
    "POST /admin/v1/enrollments/{user_code}/deny": a_waiting_machine,
    "POST /admin/v1/nodes/{node_id}/drain": a_node,
    "POST /admin/v1/nodes/{node_id}/resume": a_node_on_drain,
    "POST /admin/v1/nodes/{node_id}/revoke": a_node,
    "POST /admin/v1/keys/{key_id}/revoke": a_key,
    "POST /admin/v1/accounts": a_new_member,
    "PATCH /admin/v1/accounts/{account_id}": a_member,
    "POST /admin/v1/accounts/{account_id}/reset-second-step": a_member_with_a_second_step,
    "DELETE /admin/v1/accounts/{account_id}": a_member,
    "POST /admin/v1/regions": a_new_region,
    "PATCH /admin/v1/regions/{code}": a_region,
    "DELETE /admin/v1/regions/{code}": a_region,
    "POST /admin/v1/organisations": a_new_organisation,
    "POST /login": the_password,
    "GET /login/code": somebody_who_owes_a_code,
    "POST /login/code": somebody_who_owes_a_code,
    "GET /login/single-sign-on/callback": somebody_from_the_provider,
    "GET /invitation/{token}": an_invitation,
    "POST /invitation/{token}": an_invitation,
    "POST /account/password": the_password,
    "POST /account/sessions/{reference}/end": another_session,
    "POST /account/second-step": the_password,
    "POST /account/second-step/confirm": a_secret_to_confirm,
    "POST /account/second-step/codes": a_second_step,
    "POST /account/second-step/off": a_second_step,
    "POST /account/single-sign-on": the_password,
    "POST /account/single-sign-on/disconnect": the_password,
    "POST /device": a_machines_code,
    "POST /nodes/{node_id}": a_node_that_was_looked_at,
    "POST /nodes/{node_id}/drain": a_node,
    "POST /nodes/{node_id}/resume": a_node_on_drain,
    "POST /nodes/{node_id}/revoke": a_node,
    "POST /nodes/{node_id}/region": a_node,
    "POST /keys/{key_id}": a_key_that_was_looked_at,
    "POST /keys/{key_id}/revoke": a_key,
    "POST /members/invitations/{invitation_id}/withdraw": an_invitation,
    "POST /members/{account_id}": a_member,
    "POST /members/{account_id}/sign-out": a_member,
    "POST /members/{account_id}/reset-second-step": a_member_with_a_second_step,
    "POST /members/{account_id}/remove": a_member,
    "POST /organisations": a_new_organisation,
    "POST /organisations/{organisation_id}": another_ceiling,
    "POST /regions": a_new_region,
    "POST /regions/{code}": a_region,
    "POST /regions/{code}/remove": a_region,
    "POST /trust/{node_id}": a_node_that_was_looked_at,
}
