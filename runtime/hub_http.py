"""HTTP with the Hub, as a node speaks it: whom it trusts, what it goes through, and one clear error.

Owns the client and the words for every failure of the network or the Hub. Must not know what is asked.
"""

import ssl
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any, Self, TypeVar

import httpx
import msgspec

from runtime.errors import EnrollmentRefused, HubUnreachable
from tunnel.version import __version__

AGENT = f"porten/{__version__}"
MAX_ANSWER_BYTES = 256 * 1024
_TIMEOUT = httpx.Timeout(15.0, connect=10.0)

T = TypeVar("T")


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


class HubHttp:
    """Requests to one Hub. Use `connect`."""

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
    ) -> AsyncIterator[Self]:
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

    async def send(self, method: str, path: str, **options: Any) -> httpx.Response:
        """Ask; the options are httpx's.

        Raises:
            HubUnreachable: nobody answers there, or the Hub is in trouble.
        """
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

    def require_ok(self, answer: httpx.Response) -> None:
        """Go on only with a 200.

        Raises:
            EnrollmentRefused: it is something else; the message has the Hub's word for it.
        """
        if answer.status_code == 429:
            wait = answer.headers.get("retry-after", "60")
            raise EnrollmentRefused(f"the Hub asks to wait {wait} s before another try")
        if answer.status_code != 200:
            reason = error_code(answer) or str(answer.status_code)
            raise EnrollmentRefused(f"the Hub at {self.url} refused: {reason}")

    def decode(self, answer: httpx.Response, kind: type[T]) -> T:
        """Read a JSON document.

        Raises:
            HubUnreachable: it is none of this kind.
        """
        try:
            return msgspec.json.decode(answer.content[:MAX_ANSWER_BYTES], type=kind)
        except (msgspec.DecodeError, UnicodeDecodeError):
            raise HubUnreachable(f"{self.url} does not speak Porten: is it the Hub's address?") from None


def error_code(answer: httpx.Response) -> str:
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
