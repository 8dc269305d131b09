"""Joining a Hub and leaving it: the node's side of enrollment over HTTP.

Owns the device authorization flow (RFC 8628), JoinTokens, leaving and announcing another key. Must not know
how an identity is stored, nor how a terminal shows a code.
"""

import asyncio
import os
import platform
import socket
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import httpx
import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from runtime.devices import Device
from runtime.errors import EnrollmentRefused, HubUnreachable, NodeRevoked
from runtime.hub_http import AGENT, HubHttp, error_code
from runtime.identity import HubFacts, Identity
from runtime.signed_requests import leave_token, rotate_token
from tunnel.identity import encode_public_key
from tunnel.identity import fingerprint as key_fingerprint

DEVICE_GRANT = "urn:ietf:params:oauth:grant-type:device_code"
SLOW_DOWN_S = 5.0  # RFC 8628, 3.5

Sleep = Callable[[float], Awaitable[None]]


class HubDescription(msgspec.Struct, frozen=True, kw_only=True):
    """What `/.well-known/porten` says."""

    hub_id: str
    public_key: str
    tunnel_urls: tuple[str, ...]
    name: str = ""
    version: str = ""


class DeviceGrant(msgspec.Struct, frozen=True, kw_only=True):
    """A code to be approved in a browser. Times are seconds."""

    device_code: str
    user_code: str
    verification_uri: str
    verification_uri_complete: str = ""
    expires_in: float = 600.0
    interval: float = 5.0


class _Enrolled(msgspec.Struct, frozen=True, kw_only=True):
    node_id: str
    name: str
    credential: str
    hub: HubDescription


def fingerprint(key: Ed25519PrivateKey) -> str:
    """What a person compares on two screens: of this node's own key."""
    return key_fingerprint(encode_public_key(key.public_key()))


def describe_machine(key: Ed25519PrivateKey, devices: Sequence[Device]) -> dict[str, Any]:
    """What the person who approves gets to see of this machine."""
    return {
        "hostname": socket.gethostname(),
        "os": f"{platform.system()} {platform.release()}",
        "arch": platform.machine(),
        "devices": [
            {"kind": device.kind, "name": device.name, "memory_total": device.memory_total}
            for device in devices
        ],
        "fingerprint": fingerprint(key),
        "agent": AGENT,
    }


class HubApi(HubHttp):
    """The Hub's enrollment endpoints. Use `HubApi.connect`."""

    async def discover(self) -> HubDescription:
        """Ask the Hub who it is.

        Raises:
            HubUnreachable: nobody answers there, or it is no Hub.
        """
        answer = await self.send("GET", "/.well-known/porten")
        if answer.status_code != 200:
            raise HubUnreachable(f"{self.url} answers, but not as a Porten Hub ({answer.status_code})")
        return self.decode(answer, HubDescription)

    async def start_device(self, key: Ed25519PrivateKey, name: str, machine: dict[str, Any]) -> DeviceGrant:
        """Ask for a code that a person approves."""
        body = {"public_key": encode_public_key(key.public_key()), "name": name, "machine": machine}
        answer = await self.send("POST", "/enroll/v1/device_authorization", json=body)
        self.require_ok(answer)
        return self.decode(answer, DeviceGrant)

    async def wait_for_approval(
        self, key: Ed25519PrivateKey, grant: DeviceGrant, *, sleep: Sleep = asyncio.sleep
    ) -> Identity:
        """Poll until the code was approved, at the Hub's pace; a Hub away for a while is waited for.

        Raises:
            EnrollmentRefused: it was refused, or its time is up.
        """
        form = {"grant_type": DEVICE_GRANT, "device_code": grant.device_code}
        interval = max(grant.interval, 0.05)
        deadline = time.monotonic() + grant.expires_in
        while time.monotonic() < deadline:
            await sleep(interval)
            try:
                answer = await self.send("POST", "/enroll/v1/token", data=form)
            except HubUnreachable:
                interval = min(interval * 2, 60.0)  # RFC 8628, 3.5: back off while nobody answers
                continue
            if answer.status_code == 200:
                return self._identity(key, answer)
            interval = _next_interval(error_code(answer), interval, answer)
        raise EnrollmentRefused("the code has expired: run `porten login` again")

    async def join(self, key: Ed25519PrivateKey, token: str, name: str, machine: dict[str, Any]) -> Identity:
        """Exchange a JoinToken for an identity.

        Raises:
            EnrollmentRefused: the token is unknown, used up or expired.
        """
        body = {
            "join_token": token,
            "public_key": encode_public_key(key.public_key()),
            "name": name,
            "machine": machine,
        }
        answer = await self.send("POST", "/enroll/v1/join", json=body)
        if answer.status_code == 401:
            raise EnrollmentRefused(
                "the Hub does not accept this JoinToken: it is unknown, used up or expired"
            )
        self.require_ok(answer)
        return self._identity(key, answer)

    async def leave(self, identity: Identity) -> None:
        """Tell the Hub that this node goes for good; it is revoked there.

        Raises:
            NodeRevoked: it had forgotten the node already.
            EnrollmentRefused: it did not take it.
        """
        now = time.time()
        answer = await self._say("leave", [leave_token(identity.hub, key, now=now) for key in identity.keys])
        if answer.status_code in (401, 403, 404):
            raise NodeRevoked("the Hub does not know this node any more")
        if answer.status_code not in (200, 204):
            raise EnrollmentRefused(f"the Hub did not accept the farewell ({answer.status_code})")

    async def announce(self, identity: Identity, next_key: Ed25519PrivateKey) -> None:
        """Tell the Hub which key this node goes over to; safe to repeat.

        Raises:
            NodeRevoked: it does not know the node any more.
            EnrollmentRefused: it did not take it.
        """
        now, public = time.time(), next_key.public_key()
        tokens = [rotate_token(identity.hub, key, public, now=now) for key in identity.keys]
        answer = await self._say("rotate", tokens)
        if answer.status_code in (401, 403):
            raise NodeRevoked("the Hub does not know this node any more")
        if answer.status_code == 404:
            raise EnrollmentRefused(f"the Hub at {self.url} is too old to give a node another key")
        if answer.status_code != 204:
            self.require_ok(answer)

    async def _say(self, endpoint: str, tokens: Sequence[str]) -> httpx.Response:
        """Ask in the node's own name, with the first of the tokens whose key the Hub knows.

        A node that was interrupted while it changed its key cannot tell whether the Hub has done so.
        """
        for token in tokens:
            headers = {"authorization": f"Bearer {token}"}
            answer = await self.send("POST", f"/enroll/v1/{endpoint}", headers=headers)
            if answer.status_code not in (401, 403):
                break
        return answer

    def _identity(self, key: Ed25519PrivateKey, answer: httpx.Response) -> Identity:
        enrolled = self.decode(answer, _Enrolled)
        facts = HubFacts(
            hub_url=self.url,
            hub_id=enrolled.hub.hub_id,
            public_key=enrolled.hub.public_key,
            tunnel_urls=enrolled.hub.tunnel_urls,
            node_id=enrolled.node_id,
            name=enrolled.name,
        )
        return Identity.checked(key, enrolled.credential, facts)


def suggested_name(configured: str | None) -> str:
    """The name under which the node asks to be known."""
    return configured or socket.gethostname() or os.uname().nodename


def _next_interval(code: str, interval: float, answer: httpx.Response) -> float:
    """Seconds to the next poll.

    Raises:
        EnrollmentRefused: there is no point in another one.
    """
    if code == "authorization_pending":
        return interval
    if code == "slow_down" or answer.status_code == 429:
        return interval + SLOW_DOWN_S
    if code == "access_denied":
        raise EnrollmentRefused("the request was refused in the portal")
    if code == "expired_token":
        raise EnrollmentRefused("the code has expired: run `porten login` again")
    raise EnrollmentRefused(f"the Hub refused: {code or answer.status_code}")
