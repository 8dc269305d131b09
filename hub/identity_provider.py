"""The organisation's identity provider, as it is spoken to: discovery, keys, codes for tokens.

Owns the HTTP (bounded in time and size, no redirects) and the checking of what comes back by OpenID Connect
Core 1.0, 3.1.3.7: signature by one of the provider's keys with an asymmetric algorithm, issuer, audience,
authorised party, time and nonce. Nothing is asked before somebody signs in, and one that is down holds up
nobody else. Must not know accounts, rules or cookies.
"""

from __future__ import annotations

import asyncio
import json
import logging
import re
import ssl
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar
from urllib.parse import quote, urlsplit

import httpx
from authlib.oauth2.rfc6749.parameters import prepare_grant_uri
from authlib.oauth2.rfc7636 import create_s256_code_challenge
from authlib.oidc.core import CodeIDToken
from joserfc import jwt
from joserfc.errors import BadSignatureError, InvalidKeyIdError, JoseError
from joserfc.jwk import KeySet
from joserfc.jws import JWSRegistry

from hub.errors import IdentityProviderUnavailable, IdentityRefused

TIMEOUT_S = 5.0
KEPT_S = 3_600.0
"""Seconds that discovery and keys are believed."""
AGAIN_S = 10.0
"""Seconds after which one that failed, or a key that was not there, is asked for again."""
MAX_BYTES = 256 * 1024
LEEWAY_S = 60
ALGORITHMS = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA")
"""Asymmetric ones alone: never ``none``, and never the public key taken for a shared secret."""

log = logging.getLogger(__name__)

Value = TypeVar("Value")

_MAX_AT_ONCE = 16
_SIGNING_KEYS = ("RSA", "EC", "OKP")
_CODE = re.compile(r"[a-z_]{1,40}")
_LOOPBACK = ("localhost", "127.0.0.1", "::1")


@dataclass(frozen=True, slots=True)
class Client:
    """What the Hub is to the provider."""

    issuer: str
    client_id: str
    client_secret: str = field(repr=False)
    scopes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Attempt:
    """What ties one sign-in together: drawn at its start, held by the browser, checked at its end."""

    state: str
    nonce: str = field(repr=False)
    verifier: str = field(repr=False)


class IdentityProvider:
    """One provider.

    Args:
        client: who the Hub is there.
        clock: UTC seconds since the epoch.
    """

    def __init__(self, client: Client, clock: Callable[[], float]) -> None:
        self.client = client
        self._clock = clock
        self._metadata = _Kept(self._fetch_metadata, clock)
        self._keys = _Kept(self._fetch_keys, clock)
        self._at_once = asyncio.Semaphore(_MAX_AT_ONCE)
        self._tls: ssl.SSLContext | None = None

    async def authorization_url(self, attempt: Attempt, redirect_uri: str) -> str:
        """Where the browser goes to sign in there.

        Raises:
            IdentityProviderUnavailable: its discovery cannot be read.
        """
        metadata = await self._metadata.get()
        url: str = prepare_grant_uri(
            metadata["authorization_endpoint"],
            client_id=self.client.client_id,
            response_type="code",
            redirect_uri=redirect_uri,
            scope=" ".join(self.client.scopes),
            state=attempt.state,
            nonce=attempt.nonce,
            code_challenge=create_s256_code_challenge(attempt.verifier),
            code_challenge_method="S256",
        )
        return url

    async def claims(
        self, attempt: Attempt, code: str, redirect_uri: str, *, wanted: str
    ) -> Mapping[str, Any]:
        """Give the code for what the provider says of whoever signed in.

        Args:
            attempt: the one the code answers.
            code: as the browser brought it.
            redirect_uri: where it brought it.
            wanted: a claim that is asked of the userinfo endpoint where the token lacks it, as the e-mail is.

        Raises:
            IdentityProviderUnavailable: it does not answer, or not as it should.
            IdentityRefused: it did not take the code, or what it said does not hold.
        """
        metadata = await self._metadata.get()
        answer = await self._exchange(metadata, attempt, code, redirect_uri)
        claims = await self._checked(answer, attempt.nonce)
        if (wanted in claims and "email" in claims) or "userinfo_endpoint" not in metadata:
            return claims
        token = answer.get("access_token")
        more = await self._json(
            "GET", metadata["userinfo_endpoint"], headers={"authorization": f"Bearer {token}"}
        )
        if more.get("sub") != claims["sub"]:
            raise IdentityRefused("the identity provider answered with somebody else's data")
        return {**more, **claims}

    async def _exchange(
        self, metadata: Mapping[str, Any], attempt: Attempt, code: str, redirect_uri: str
    ) -> dict[str, Any]:
        form = {
            "grant_type": "authorization_code",
            "code": code,
            "redirect_uri": redirect_uri,
            "code_verifier": attempt.verifier,
        }
        methods = metadata.get("token_endpoint_auth_methods_supported", ["client_secret_basic"])
        if "client_secret_basic" not in methods and "client_secret_post" in methods:
            form |= {"client_id": self.client.client_id, "client_secret": self.client.client_secret}
            return await self._json("POST", metadata["token_endpoint"], data=form)
        # RFC 6749, 2.3.1: both are form-encoded first.
        basic = httpx.BasicAuth(quote(self.client.client_id, ""), quote(self.client.client_secret, ""))
        return await self._json("POST", metadata["token_endpoint"], data=form, auth=basic)

    async def _checked(self, answer: Mapping[str, Any], nonce: str) -> dict[str, Any]:
        token = answer.get("id_token")
        if not isinstance(token, str):
            raise IdentityRefused("the identity provider sent no ID token")
        try:
            return self._validated(token, await self._keys.get(), answer, nonce)
        except (InvalidKeyIdError, BadSignatureError):
            # A key that came after ours were fetched: they are asked for again, but not at each try.
            self._keys.forget(AGAIN_S)
        try:
            return self._validated(token, await self._keys.get(), answer, nonce)
        except (InvalidKeyIdError, BadSignatureError):
            raise IdentityRefused("the ID token is signed with none of the provider's keys") from None

    def _validated(self, token: str, keys: KeySet, answer: Mapping[str, Any], nonce: str) -> dict[str, Any]:
        asymmetric = JWSRegistry(algorithms=list(ALGORITHMS), strict_check_header=False)
        options = {
            "iss": {"essential": True, "value": self.client.issuer},
            "aud": {"essential": True, "value": self.client.client_id},
        }
        params = {
            "nonce": nonce,
            "client_id": self.client.client_id,
            "access_token": answer.get("access_token"),
        }
        try:
            read = jwt.decode(token, keys, registry=asymmetric)
            claims = CodeIDToken(read.claims, read.header, options, params)
            claims.validate(now=int(self._clock()), leeway=LEEWAY_S)
        except (InvalidKeyIdError, BadSignatureError):
            raise
        except (JoseError, ValueError, TypeError) as error:
            raise IdentityRefused(f"the ID token does not hold: {type(error).__name__}") from None
        return dict(claims)

    async def _fetch_metadata(self) -> dict[str, Any]:
        url = f"{self.client.issuer.rstrip('/')}/.well-known/openid-configuration"
        found = await self._json("GET", url)
        if found.get("issuer") != self.client.issuer:
            raise IdentityProviderUnavailable("its discovery names another issuer than the setting does")
        for name in ("authorization_endpoint", "token_endpoint", "jwks_uri"):
            self._check_endpoint(name, found.get(name))
        if "userinfo_endpoint" in found:
            self._check_endpoint("userinfo_endpoint", found["userinfo_endpoint"])
        return found

    def _check_endpoint(self, name: str, url: object) -> None:
        needed = "https" if self.client.issuer.startswith("https:") else "http"
        if not isinstance(url, str) or not url.startswith((f"{needed}://", "https://")):
            raise IdentityProviderUnavailable(f"its {name} is no {needed} address")

    async def _fetch_keys(self) -> KeySet:
        found = (await self._json("GET", (await self._metadata.get())["jwks_uri"])).get("keys")
        usable = [
            each
            for each in (found if isinstance(found, list) else [])
            if isinstance(each, dict) and each.get("kty") in _SIGNING_KEYS and each.get("use") != "enc"
        ]
        try:
            return KeySet.import_key_set({"keys": usable})
        except (JoseError, ValueError, TypeError, KeyError):
            raise IdentityProviderUnavailable("its keys cannot be read") from None

    async def _json(self, method: str, url: str, **content: Any) -> dict[str, Any]:
        try:
            async with self._at_once, asyncio.timeout(TIMEOUT_S):
                status, body = await self._bounded(method, url, content)
            found = json.loads(body)
        except (TimeoutError, httpx.TimeoutException):
            raise IdentityProviderUnavailable("it does not answer in time") from None
        except (httpx.HTTPError, httpx.InvalidURL, OSError) as error:
            fields = {"event": "provider.unreachable", "error": type(error).__name__}
            log.warning("the identity provider cannot be reached", extra=fields)
            raise IdentityProviderUnavailable("it cannot be reached") from None
        except ValueError:
            raise IdentityProviderUnavailable("its answer is no JSON") from None
        if not isinstance(found, dict):
            raise IdentityProviderUnavailable("its answer is no JSON object")
        code = found.get("error")
        if method == "POST" and isinstance(code, str) and _CODE.fullmatch(code):
            raise IdentityRefused(f"the identity provider did not accept the sign-in: {code}")
        if status != httpx.codes.OK:
            raise IdentityProviderUnavailable(f"it answers with status {status}")
        return found

    async def _bounded(self, method: str, url: str, content: Mapping[str, Any]) -> tuple[int, bytes]:
        if self._tls is None:  # reads a file of authorities, which takes its time: once, and not in the loop
            self._tls = await asyncio.to_thread(httpx.create_ssl_context)
        # Proxies and private authorities come from the environment, as for any program; never on loopback.
        outside = urlsplit(url).hostname not in _LOOPBACK
        async with (
            httpx.AsyncClient(
                timeout=TIMEOUT_S, follow_redirects=False, trust_env=outside, verify=self._tls
            ) as http,
            http.stream(method, url, **content) as response,
        ):
            body = bytearray()
            async for chunk in response.aiter_bytes():
                body += chunk
                if len(body) > MAX_BYTES:
                    raise IdentityProviderUnavailable("its answer is too large")
            return response.status_code, bytes(body)


class _Kept(Generic[Value]):
    """Something fetched when it is first wanted, by one for all who wait, and kept for a while.

    A failure is kept too, for a moment: however many want it, one that is down is asked once.
    """

    def __init__(self, fetch: Callable[[], Awaitable[Value]], clock: Callable[[], float]) -> None:
        self._fetch = fetch
        self._clock = clock
        self._value: Value | None = None
        self._failure: str | None = None
        self._asked_at = 0.0
        self._asking = asyncio.Lock()

    async def get(self) -> Value:
        """Return it.

        Raises:
            IdentityProviderUnavailable: it cannot be had, or could not a moment ago.
        """
        async with self._asking:
            age = self._clock() - self._asked_at
            if self._value is not None and age < KEPT_S:
                return self._value
            if self._failure is not None and age < AGAIN_S:
                raise IdentityProviderUnavailable(self._failure)
            self._value, self._asked_at = None, self._clock()
            try:
                self._value = await self._fetch()
            except IdentityProviderUnavailable as error:
                self._failure = str(error)
                raise
            self._failure = None
            return self._value

    def forget(self, after_s: float) -> None:
        """Ask for it again next time, unless it is younger than this."""
        if self._clock() - self._asked_at >= after_s:
            self._value = None
