"""Access control route by route: each cell of the table is really asked, on one running Hub."""

import base64
import itertools
import os
import re
import time
from collections import Counter
from dataclasses import dataclass, field

import httpx
import pytest
from argon2 import PasswordHasher

from hub.app import create_app
from hub.policy import PRIVATE, TrustClass
from hub.portal.security import csrf_token, new_token
from hub.portal.sessions import session_id
from hub.storage.records import Role
from tests.integration.hub.api.access.table import (
    ABSENT,
    CALLERS,
    ELSEWHERE,
    FORBIDDEN,
    HOME,
    OK,
    OPERATORS,
    ROWS,
    SIGN_IN,
    UNKNOWN,
    Caller,
    Row,
)

CHEAP = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1)


def served(routes, prefix=""):
    """Method and path of every route of an application, whatever it is included through."""
    for route in routes:
        if hasattr(route, "original_router"):
            yield from served(route.original_router.routes, prefix + route.include_context.prefix)
        else:
            yield from ((method, prefix + route.path) for method in route.methods - {"HEAD"})


def test_every_route_has_one_row(bench):
    app = create_app(bench.hub)
    found = set(served(app.router.routes)) | {("POST", path) for path in app.straight}
    rows = Counter((row.method, row.path) for row in ROWS)
    assert set(rows) == found
    assert set(rows.values()) == {1}


@dataclass
class World:
    """Organisations with their things, and everybody who asks."""

    bench: object
    http: httpx.AsyncClient
    homes: dict = field(default_factory=dict)
    shown: dict = field(default_factory=dict)
    numbers: itertools.count = field(default_factory=itertools.count)

    async def build(self):
        for name in (HOME, ELSEWHERE, OPERATORS):
            self.homes[name] = await self.bench.organisation(name)
        for caller in CALLERS:
            self.shown[caller] = await self.credentials(caller)
        self.node = (await self.make_node()).id
        self.key = (await self.key_of()).id
        storage, now = self.bench.hub.storage, time.time()
        wish = {"name": "a", "token_hash": "1" * 64, "expires_at": now + 999, "now": now}
        self.join_token = await storage.join_tokens.create(
            self.homes[HOME], **wish, region=None, region_confirmed=False, max_uses=1
        )
        wish = {"name": "a", "prefix": "padm-", "role": Role.MEMBER, "token_hash": "2" * 64}
        self.admin_token = await storage.admin_tokens.create(
            self.homes[HOME], **wish, expires_at=now + 999, now=now
        )

    async def credentials(self, caller):
        hub, home = self.bench.hub, self.homes[caller.organisation]
        if caller.kind == "api key":
            return {"authorization": f"Bearer {await self.bench.key(home)}"}
        if caller.kind == "token":
            issued = await hub.admin_tokens.issue(None, home, name="a", role=caller.role, lifetime_s=999)
            return {"authorization": f"Bearer {issued.secret}"}
        return {} if caller.kind == "nobody" else await self.session(caller, home)

    async def session(self, caller, home):
        account, cookie, now = await self.account(caller.role, home), new_token(), time.time()
        await self.bench.hub.storage.sessions.create(
            session_id(cookie), account.id, csrf_token=csrf_token(cookie), expires_at=now + 999, now=now
        )
        return {"cookie": f"porten-session={cookie}", "x-csrf": csrf_token(cookie)}

    async def account(self, role, home):
        return await self.bench.hub.storage.accounts.create(
            home, email=f"{next(self.numbers)}@a.example", password_hash="-", role=role, now=time.time()
        )

    async def make_node(self):
        return await self.bench.hub.storage.nodes.create(
            self.homes[HOME],
            name="a",
            public_key="A" * 43,
            region=None,
            region_confirmed=False,
            trust=TrustClass.COMMUNITY,
            sharing=PRIVATE,
            machine={},
            now=time.time(),
        )

    async def key_of(self):
        await self.bench.key(self.homes[HOME])
        return (await self.bench.hub.storage.keys.list(self.homes[HOME]))[0]

    async def path(self, row: Row) -> str:
        """The address of a thing; what a request would use up is new for each."""
        values = {"model:path": "tiny", "name": "mark.svg", "organisation_id": self.homes[HOME]}
        values |= {"node_id": self.node, "key_id": self.key}
        values["token_id"] = (self.join_token if "join" in row.path else self.admin_token).id
        if row.path.endswith("/revoke") and row.method == "POST":
            values |= {"node_id": (await self.make_node()).id, "key_id": (await self.key_of()).id}
        if "user_code" in row.path:
            grant = await self.bench.hub.enrollment.start_device(
                base64.urlsafe_b64encode(os.urandom(32)).decode().rstrip("="),
                "a",
                {},
                f"{next(self.numbers)}",
            )
            values["user_code"] = grant.user_code
        if "account_id" in row.path:
            values["account_id"] = (await self.account(Role.MEMBER, self.homes[HOME])).id
        return re.sub(r"\{([^}]+)\}", lambda match: values[match[1]], row.path)

    async def ask(self, row: Row, caller: Caller) -> httpx.Response:
        headers = dict(self.shown[caller])
        csrf = headers.pop("x-csrf", "x")
        if row.path == "/logout" and caller.kind == "session":  # it ends: with one of its own
            headers = await self.session(caller, self.homes[caller.organisation])
            csrf = headers.pop("x-csrf")
        number = next(self.numbers)
        headers["x-forwarded-for"] = f"10.0.{number // 250}.{number % 250 + 1}"  # none is held to a pace
        options = {}
        if row.body is not None:
            is_form = not row.path.startswith(("/v1/", "/admin/", "/enroll/"))
            options = {"data": row.body | {"csrf_token": csrf}} if is_form else {"json": row.body}
        return await self.http.request(
            row.method, await self.path(row), headers=headers, params=row.query, **options
        )


def outcome(row: Row, answer: httpx.Response) -> str:
    """What became of a request, in the table's words."""
    if answer.status_code == 303 and answer.headers["location"].startswith("/login?next="):
        return SIGN_IN
    if answer.status_code in row.good:
        return OK
    return {401: UNKNOWN, 403: FORBIDDEN, 404: ABSENT}.get(
        answer.status_code, f"{answer.status_code} {answer.text}"
    )


@pytest.fixture
async def world(bench, http):
    bench.hub.accounts._hasher = CHEAP
    found = World(bench, http)
    await found.build()
    return found


async def test_every_cell_is_as_the_table_says(world):
    wrong = []
    for row in ROWS:
        for caller in CALLERS:
            answer = await world.ask(row, caller)
            got, expected = outcome(row, answer), row.expects(caller)
            if got != expected:
                wrong.append(f"{row.method} {row.path} by {caller}: {got}, not {expected}")
    assert not wrong, "\n".join(each[:300] for each in wrong)


async def test_the_tunnel_opens_to_nobody_who_brings_no_nodes_key(world):
    """It knows no keys, tokens or cookies: whoever shows them is a stranger, and stays one."""
    address = world.bench.hub.addresses.tunnel_local.replace("ws://", "http://")
    for caller in CALLERS:
        headers = {name: value for name, value in world.shown[caller].items() if name != "x-csrf"}
        async with httpx.AsyncClient(trust_env=False) as client:
            answer = await client.get(address, headers=headers)
        assert answer.status_code >= 400, caller
    assert not world.bench.hub.registry.connected_ids()
