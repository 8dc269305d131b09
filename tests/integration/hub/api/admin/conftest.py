"""Programs with admin tokens, of every role, that ask a real Hub."""

import secrets
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest
from argon2 import PasswordHasher

from hub.storage.records import AdminToken, Role

CHEAP = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1)


@dataclass
class Program:
    """Asks with a token of its own."""

    http: httpx.AsyncClient
    token: AdminToken
    secret: str = field(repr=False)

    async def ask(self, method: str, path: str, body: Any = None, **options: Any) -> httpx.Response:
        if body is not None:
            options["json"] = body
        return await self.http.request(method, f"/admin/v1{path}", **options)

    async def get(self, path: str, status: int = 200, **params: Any) -> Any:
        answer = await self.ask("GET", path, params=params)
        assert answer.status_code == status, answer.text
        return answer.json()

    async def post(self, path: str, body: Any = None, status: int = 201, **headers: str) -> Any:
        answer = await self.ask("POST", path, body, headers=named(headers))
        assert answer.status_code == status, answer.text
        return answer.json()

    async def patch(self, path: str, body: Any, status: int = 200) -> Any:
        answer = await self.ask("PATCH", path, body)
        assert answer.status_code == status, answer.text
        return answer.json()


def named(headers: dict[str, str]) -> dict[str, str]:
    return {name.replace("_", "-"): value for name, value in headers.items()}


@dataclass
class Programs:
    """Makes programs; organisations are made when they are first named."""

    bench: Any
    clients: list[httpx.AsyncClient] = field(default_factory=list)

    async def organisation(self, name: str) -> str:
        found = await self.bench.hub.storage.organisations.by_name(name)
        return found.id if found else await self.bench.organisation(name)

    async def of(self, role: Role = Role.OWNER, organisation: str = "Acme") -> Program:
        home = await self.organisation(organisation)
        issued = await self.bench.hub.admin_tokens.issue(
            None, home, name=f"{role} of {organisation}", role=role, lifetime_s=3600
        )
        client = httpx.AsyncClient(
            base_url=self.bench.url,
            timeout=20,
            trust_env=False,
            headers={"authorization": f"Bearer {issued.secret}"},
        )
        self.clients.append(client)
        return Program(client, issued.token, issued.secret)


@pytest.fixture(params=["sqlite", "postgresql"])
def settings(request):
    """A database of each kind: what is written here is written in one transaction with its answer."""
    if request.param == "sqlite":
        yield {}
        return
    postgres, name = request.getfixturevalue("postgres"), f"hub_{secrets.token_hex(6)}"
    yield {"database_url": postgres.create(name)}
    postgres.drop(name)


@pytest.fixture
async def programs(bench) -> AsyncIterator[Programs]:
    bench.hub.accounts._hasher = CHEAP
    found = Programs(bench)
    yield found
    for client in found.clients:
        await client.aclose()


@pytest.fixture
async def owner(programs) -> Program:
    return await programs.of(Role.OWNER)


@pytest.fixture
async def operator(programs) -> Program:
    return await programs.of(Role.OPERATOR, "Porten")


@pytest.fixture
async def stranger(programs) -> Program:
    return await programs.of(Role.OWNER, "Eve")
