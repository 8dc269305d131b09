"""A Hub with organisations, their things, and everybody who asks for them, as the table names them."""

import itertools
import re
import secrets
import time
from dataclasses import dataclass, field
from typing import Any

import httpx

from hub.policy import PRIVATE, TrustClass
from hub.portal.security import csrf_token, new_token
from hub.portal.sessions import session_id
from hub.program import own_program
from hub.storage.records import Account, Role
from tests.integration.hub.api.access.rules import CALLERS, ELSEWHERE, HOME, OK, OPERATORS, Caller, Row
from tests.integration.hub.api.access.things import MAKERS, Needed, a_member

IDS = {"node_id", "key_id", "token_id", "account_id", "invitation_id", "organisation_id"}
"""What stands in addresses for things that are somebody's."""


def nobodys(identifier: str) -> str:
    """An id of the same form that was never given to anything."""
    return f"{identifier.partition('_')[0]}_{'a' * 20}"


@dataclass(frozen=True)
class Person:
    """Who asks, and what they show; `account` and `session` are of people alone.

    `id` is what the audit log names them by.
    """

    headers: dict[str, str] = field(default_factory=dict)
    csrf: str = "x"
    account: Account | None = None
    session: str = ""
    id: str = ""


@dataclass
class World:
    """Organisations with their things, and everybody who asks."""

    bench: Any
    http: httpx.AsyncClient
    password_hash: str
    homes: dict[str, str] = field(default_factory=dict)
    people: dict[Caller, Person] = field(default_factory=dict)
    things: dict[str, str] = field(default_factory=dict)
    unused: dict[str, Needed] = field(default_factory=dict)
    numbers: itertools.count = field(default_factory=itertools.count)

    async def build(self):
        for name in (HOME, ELSEWHERE, OPERATORS):
            self.homes[name] = await self.bench.organisation(name)
        for caller in CALLERS:
            self.people[caller] = await self.person(caller)
        self.inviter = self.people[Caller("session", Role.OWNER)].account
        await self.bench.node(self.homes[HOME])
        self.things = await self.lasting()

    async def lasting(self) -> dict[str, str]:
        """What stands in addresses where no request uses it up."""
        storage, now, home = self.bench.hub.storage, time.time(), self.homes[HOME]
        wish = {"name": "a", "token_hash": secrets.token_hex(32), "expires_at": now + 999, "now": now}
        join_token = await storage.join_tokens.create(
            home, **wish, region=None, region_confirmed=False, max_uses=1
        )
        wish |= {"token_hash": secrets.token_hex(32)}
        admin_token = await storage.admin_tokens.create(home, **wish, prefix="padm-", role=Role.MEMBER)
        member = await a_member(self, None)
        return member.values | {
            "model:path": "tiny",
            "name": "mark.svg",
            "file": own_program().file,
            "organisation_id": home,
            "code": "us",
            "node_id": (await self.make_node()).id,
            "key_id": (await self.make_key()).id,
            "join_token": join_token.id,
            "token_id": admin_token.id,
        }

    @property
    def shown(self) -> dict[Caller, dict[str, str]]:
        """The headers of each caller."""
        return {caller: person.headers for caller, person in self.people.items()}

    async def person(self, caller: Caller) -> Person:
        hub, home = self.bench.hub, self.homes[caller.organisation]
        if caller.kind == "api key":
            return Person({"authorization": f"Bearer {await self.bench.key(home)}"})
        if caller.kind == "token":
            issued = await hub.admin_tokens.issue(None, home, name="a", role=caller.role, lifetime_s=999)
            return Person({"authorization": f"Bearer {issued.secret}"}, id=issued.token.id)
        if caller.kind == "session":
            return await self.session(await self.account(caller.role, home))
        return Person()

    async def session(self, account: Account) -> Person:
        cookie, now = new_token(), time.time()
        csrf, identifier = csrf_token(cookie), session_id(cookie)
        await self.bench.hub.storage.sessions.create(
            identifier, account.id, csrf_token=csrf, expires_at=now + 999, now=now
        )
        return Person({"cookie": f"porten-session={cookie}"}, csrf, account, identifier, account.id)

    async def account(self, role: Role, home: str) -> Account:
        email, now = f"{next(self.numbers)}@a.example", time.time()
        return await self.bench.hub.storage.accounts.create(
            home, email=email, password_hash=self.password_hash, role=role, now=now
        )

    async def make_node(self):
        return await self.bench.hub.storage.nodes.create(
            self.homes[HOME],
            name="a",
            public_key="A" * 43,
            region="eu",
            region_confirmed=False,
            trust=TrustClass.COMMUNITY,
            sharing=PRIVATE,
            machine={},
            now=time.time(),
        )

    async def make_key(self):
        await self.bench.key(self.homes[HOME])
        return (await self.bench.hub.storage.keys.list(self.homes[HOME]))[0]

    async def needed(self, row: Row, person: Person) -> Needed:
        """What is made for one request."""
        maker = MAKERS.get(f"{row.method} {row.path}")
        if maker is None:
            return Needed()
        return await maker(self, person.account or await self.account(Role.MEMBER, self.homes[HOME]))

    def address(self, row: Row, needed: Needed, *, unknown: bool = False) -> str:
        values = self.things | needed.values
        if "join-tokens" in row.path:
            values["token_id"] = values["join_token"]
        if unknown:
            values = {name: nobodys(value) if name in IDS else value for name, value in values.items()}
        return re.sub(r"\{([^}]+)\}", lambda match: values[match[1]], row.path)

    async def path(self, row: Row) -> str:
        """The address of a thing; what a request would use up is new for each."""
        return self.address(row, await self.needed(row, Person()))

    async def browse(self, method: str, path: str, cookies: dict[str, str], **more: Any) -> httpx.Response:
        """Ask with these cookies and from an address of its own, so that none is held to a pace."""
        number = next(self.numbers)
        headers = {"x-forwarded-for": f"10.0.{number // 250}.{number % 250 + 1}"} | more.pop("headers", {})
        if cookies:
            shown = [f"{name}={value}" for name, value in cookies.items()]
            headers["cookie"] = "; ".join(filter(None, [headers.get("cookie"), *shown]))
        answer = await self.http.request(method, path, headers=headers, **more)
        self.http.cookies.clear()  # the next one who asks is somebody else
        return answer

    async def ask(self, row: Row, caller: Caller, *, unknown: bool = False) -> httpx.Response:
        """Ask for what a row is about, or, where it is to be ``unknown``, for one that there never was."""
        if row.own and caller.kind == "session":
            person = await self.person(caller)
            needed = await self.needed(row, person)
        else:
            person = self.people[caller]
            needed = self.unused.pop(f"{row.method} {row.path}", None) or await self.needed(row, person)
            if row.expects(caller) != OK:
                self.unused[f"{row.method} {row.path}"] = needed
        return await self.send(row, person, needed, unknown=unknown)

    async def send(
        self, row: Row, person: Person, needed: Needed, *, unknown: bool = False
    ) -> httpx.Response:
        """Send a row's request as this person."""
        headers, csrf, cookies = dict(person.headers), person.csrf, dict(needed.cookies)
        if row.is_page and row.who == "everybody":  # a form of somebody who has yet to sign in
            cookies["porten-visit"] = visit = new_token()
            csrf = csrf_token(visit)
        body: dict[str, Any] | None = {**(row.body or {}), **needed.body} or row.body
        options: dict[str, Any] = {"params": row.query | needed.query}
        if row.script:
            headers["x-csrf-token"] = csrf
        if row.method != "GET" and row.is_page and not row.script:
            options["data"] = {**(body or {}), "csrf_token": csrf}
        elif body is not None and row.method != "GET":
            options["json"] = body
        path = self.address(row, needed, unknown=unknown)
        return await self.browse(row.method, path, cookies, headers=headers, **options)
