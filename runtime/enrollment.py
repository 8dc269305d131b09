"""Joining a Hub and leaving it: the node's side of enrollment over HTTP.

Owns the device authorization flow (RFC 8628), JoinTokens, leaving and announcing another key. Must not know
how an identity is stored, nor how a terminal shows a code. Every failure of the network or the Hub becomes
one clear error.
"""

import asyncio
import os
import platform
import socket
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any, TypeVar

import httpx
import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from runtime.devices import Device
from runtime.errors import EnrollmentRefused, HubUnreachable, NodeRevoked
from runtime.identity import HubFacts, Identity
from runtime.signed_requests import leave_token, rotate_token
from tunnel.identity import encode_public_key
from tunnel.identity import fingerprint as key_fingerprint
from tunnel.version import __version__

AGENT = f"porten/{__version__}"
DEVICE_GRANT = "urn:ietf:params:oauth:grant-type:device_code"
SLOW_DOWN_S = 5.0  # RFC 8628, 3.5
MAX_ANSWER_BYTES = 256 * 1024
_TIMEOUT = httpx.Timeout(15.0, connect=10.0)

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


T = TypeVar("T")


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


def tls_context(ca_file: Path | None) -> ssl.SSLContext:
    """The trust in the Hub's certificate: the system's authorities, and the owner's own where there is one.

    Raises:
        HubUnreachable: the file holds no certificate.
    """
    context = ssl.create_default_context()
    if ca_file is not None:
        try:
            context.load_verify_locations(cafile=ca_file)
        except (OSError, ssl.SSLError) as error:
            raise HubUnreachable(f"hub_ca_file {ca_file} cannot be used: {error}") from None
    return context


class HubApi:
    """The Hub's enrollment endpoints. Use `HubApi.connect`."""

    def __init__(self, url: str, client: httpx.AsyncClient, *, proxied: bool = False) -> None:
        self.url = url
        self.clock_ahead_s: float | None = None
        """Seconds the Hub's clock is ahead of ours, as of its last answer; None where it does not say."""
        self._client = client
        self._proxied = proxied

    @classmethod
    @asynccontextmanager
    async def connect(
        cls, url: str, *, ca_file: Path | None = None, proxy: str | None = None
    ) -> AsyncIterator["HubApi"]:
        """Talk to the Hub at `url`.

        Args:
            url: base URL of the Hub.
            ca_file: further authority to trust, in PEM.
            proxy: URL of the HTTP proxy to go through; None goes directly, whatever the environment says.
        """
        verify: ssl.SSLContext | bool = tls_context(ca_file) if url.startswith("https://") else True
        headers = {"user-agent": AGENT, "accept": "application/json"}
        async with httpx.AsyncClient(
            base_url=url, verify=verify, proxy=proxy, trust_env=False, timeout=_TIMEOUT, headers=headers
        ) as client:
            yield cls(url, client, proxied=proxy is not None)

    async def discover(self) -> HubDescription:
        """Ask the Hub who it is.

        Raises:
            HubUnreachable: nobody answers there, or it is no Hub.
        """
        answer = await self._send("GET", "/.well-known/porten")
        if answer.status_code != 200:
            raise HubUnreachable(f"{self.url} answers, but not as a Porten Hub ({answer.status_code})")
        return self._decode(answer, HubDescription)

    async def start_device(self, key: Ed25519PrivateKey, name: str, machine: dict[str, Any]) -> DeviceGrant:
        """Ask for a code that a person approves."""
        body = {"public_key": encode_public_key(key.public_key()), "name": name, "machine": machine}
        answer = await self._send("POST", "/enroll/v1/device_authorization", json=body)
        self._require_ok(answer)
        return self._decode(answer, DeviceGrant)

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
                answer = await self._send("POST", "/enroll/v1/token", data=form)
            except HubUnreachable:
                interval = min(interval * 2, 60.0)  # RFC 8628, 3.5: back off while nobody answers
                continue
            if answer.status_code == 200:
                return self._identity(key, answer)
            interval = _next_interval(_error_code(answer), interval, answer)
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
        answer = await self._send("POST", "/enroll/v1/join", json=body)
        if answer.status_code == 401:
            raise EnrollmentRefused(
                "the Hub does not accept this JoinToken: it is unknown, used up or expired"
            )
        self._require_ok(answer)
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
            self._require_ok(answer)

    async def _say(self, endpoint: str, tokens: Sequence[str]) -> httpx.Response:
        """Ask in the node's own name, with the first of the tokens whose key the Hub knows.

        A node that was interrupted while it changed its key cannot tell whether the Hub has done so.
        """
        for token in tokens:
            headers = {"authorization": f"Bearer {token}"}
            answer = await self._send("POST", f"/enroll/v1/{endpoint}", headers=headers)
            if answer.status_code not in (401, 403):
                break
        return answer

    def _identity(self, key: Ed25519PrivateKey, answer: httpx.Response) -> Identity:
        enrolled = self._decode(answer, _Enrolled)
        facts = HubFacts(
            hub_url=self.url,
            hub_id=enrolled.hub.hub_id,
            public_key=enrolled.hub.public_key,
            tunnel_urls=enrolled.hub.tunnel_urls,
            node_id=enrolled.node_id,
            name=enrolled.name,
        )
        return Identity.checked(key, enrolled.credential, facts)

    async def _send(self, method: str, path: str, **options: Any) -> httpx.Response:
        try:
            answer = await self._client.request(method, path, **options)
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise HubUnreachable(_explain(self.url, error, proxied=self._proxied)) from None
        if answer.status_code == 407:
            raise HubUnreachable(_turned_away(self.url, "407 Proxy Authentication Required"))
        self.clock_ahead_s = _clock_ahead(answer.headers.get("date"))
        if answer.status_code >= 500:
            raise HubUnreachable(
                f"the Hub at {self.url} is in trouble ({answer.status_code}): try again later"
            )
        return answer

    def _require_ok(self, answer: httpx.Response) -> None:
        if answer.status_code == 429:
            wait = answer.headers.get("retry-after", "60")
            raise EnrollmentRefused(f"the Hub asks to wait {wait} s before another try")
        if answer.status_code != 200:
            reason = _error_code(answer) or str(answer.status_code)
            raise EnrollmentRefused(f"the Hub at {self.url} refused: {reason}")

    def _decode(self, answer: httpx.Response, kind: type[T]) -> T:
        try:
            return msgspec.json.decode(answer.content[:MAX_ANSWER_BYTES], type=kind)
        except (msgspec.DecodeError, UnicodeDecodeError):
            raise HubUnreachable(f"{self.url} does not speak Porten: is it the Hub's address?") from None


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


def _error_code(answer: httpx.Response) -> str:
    """The Hub's word for what is wrong, short enough to be shown."""
    try:
        document = msgspec.json.decode(answer.content[:MAX_ANSWER_BYTES])
    except (msgspec.DecodeError, UnicodeDecodeError):
        return ""
    error = document.get("error") if isinstance(document, dict) else None
    if isinstance(error, dict):
        error = error.get("message") or error.get("code")
    return error[:200] if isinstance(error, str) else ""


def _clock_ahead(date: str | None) -> float | None:
    if date is None:
        return None
    try:
        return parsedate_to_datetime(date).timestamp() - time.time()
    except ValueError:
        return None


def _turned_away(url: str, reason: str) -> str:
    return f"the proxy does not let this machine through to {url} ({reason}): check proxy_url"


def _explain(url: str, error: httpx.HTTPError | httpx.InvalidURL, *, proxied: bool) -> str:
    text = str(error) or type(error).__name__
    if isinstance(error, httpx.ProxyError):
        return _turned_away(url, text)
    if "CERTIFICATE_VERIFY_FAILED" in text:
        return f"the certificate of {url} is not trusted: set hub_ca_file to your authority's PEM file"
    if isinstance(error, httpx.TimeoutException):
        return f"the Hub at {url} does not answer in time: check the address and the network"
    if proxied:
        return (
            f"the Hub at {url} cannot be reached through the proxy ({text}): check proxy_url and the network"
        )
    return f"the Hub at {url} cannot be reached ({text}): check the address and the network"
