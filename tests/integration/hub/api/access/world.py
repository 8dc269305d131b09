"""A Hub with organisations, their things, and everybody who asks for them, as the table names them."""

import base64
import itertools
import os
import re
import time
from dataclasses import dataclass, field

import httpx

from hub.policy import PRIVATE, TrustClass
from hub.portal.security import csrf_token, new_token
from hub.portal.sessions import session_id
from hub.storage.records import Role
from tests.integration.hub.api.access.table import CALLERS, ELSEWHERE, HOME, OPERATORS, Caller, Row


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
