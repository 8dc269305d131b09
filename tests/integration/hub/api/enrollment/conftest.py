"""Machines that speak to a real Hub's enrollment endpoints, each from an address of its own."""

import time
from dataclasses import dataclass, field
from typing import Any

import httpx
import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from hub.policy import TrustClass
from hub.storage.records import Role
from tunnel.identity import encode_public_key

DEVICE_GRANT = "urn:ietf:params:oauth:grant-type:device_code"


@dataclass
class Clock:
    """Time that stands until a test moves it."""

    now: float = field(default_factory=time.time)

    def __call__(self) -> float:
        return self.now


@dataclass
class Machine:
    """A machine with a key. No answer it gets may be cached, and each refusal has OAuth's form."""

    http: httpx.AsyncClient
    address: str = "192.0.2.1"
    key: Ed25519PrivateKey = field(default_factory=Ed25519PrivateKey.generate)

    @property
    def public_key(self) -> str:
        return encode_public_key(self.key.public_key())

    @property
    def says(self) -> dict[str, Any]:
        return {"public_key": self.public_key, "name": "attic", "machine": {"hostname": "attic.example"}}

    def at(self, address: str) -> "Machine":
        """The same machine somewhere else."""
        return Machine(self.http, address, self.key)

    async def post(self, endpoint: str, **options: Any) -> httpx.Response:
        headers = {"x-forwarded-for": self.address} | options.pop("headers", {})
        answer = await self.http.post(f"/enroll/v1/{endpoint}", headers=headers, **options)
        assert answer.headers["cache-control"] == "no-store"
        if answer.status_code >= 400:
            assert set(answer.json()) == {"error", "error_description"}
        return answer

    async def ask(self) -> dict[str, Any]:
        answer = await self.post("device_authorization", json=self.says)
        assert answer.status_code == 200, answer.text
        return answer.json()

    async def poll(self, device_code: str) -> httpx.Response:
        return await self.post("token", data={"grant_type": DEVICE_GRANT, "device_code": device_code})

    async def join(self, token: str) -> httpx.Response:
        return await self.post("join", json=self.says | {"join_token": token})

    async def leave(self, token: str) -> httpx.Response:
        return await self.post("leave", headers={"authorization": f"Bearer {token}"})

    def farewell(self, node_id: str, hub_id: str, **changes: Any) -> str:
        """What a node signs to leave."""
        kind, key = changes.pop("typ", "porten-leave+jwt"), changes.pop("key", self.key)
        claims = {"sub": node_id, "aud": hub_id, "iat": int(time.time()), "exp": int(time.time()) + 60}
        algorithm = "none" if key is None else "EdDSA"
        return jwt.encode(claims | changes, key, algorithm=algorithm, headers={"typ": kind})

    async def rotate(self, token: str) -> httpx.Response:
        return await self.post("rotate", headers={"authorization": f"Bearer {token}"})

    def announcement(self, node_id: str, hub_id: str, public_key: Any, **changes: Any) -> str:
        """What a node signs to go over to another key."""
        wish = {"typ": "porten-rotate+jwt", "public_key": public_key} | changes
        return self.farewell(node_id, hub_id, **wish)


@pytest.fixture
def machine(http) -> Machine:
    return Machine(http)


@pytest.fixture
def clock(bench) -> Clock:
    bench.hub.clock = bench.hub.enrollment._clock = Clock()
    return bench.hub.clock


@pytest.fixture
async def operator(bench, clock):
    organisation = await bench.organisation()
    return await bench.hub.storage.accounts.create(
        organisation, email="op@acme.example", password_hash="-", role=Role.OPERATOR, now=clock()
    )


@pytest.fixture
def approve(bench, operator):
    """The operator lets a machine in by its code."""

    async def approve(user_code: str):
        wish = {"name": "attic", "region": "eu-de", "trust": TrustClass.TRUSTED}
        return await bench.hub.enrollment.approve(user_code, operator, **wish)

    return approve


@pytest.fixture
def join_token(bench, operator):
    async def make(**changes: Any) -> str:
        wish = {"region": "eu-de"} | changes
        return (await bench.hub.enrollment.create_join_token(operator.organisation_id, **wish)).secret

    return make


@pytest.fixture
def refused():
    """How an answer refuses: its status and OAuth's word for it."""
    return lambda answer: (answer.status_code, answer.json()["error"])
