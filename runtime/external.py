"""The endpoints that the owner runs, asked and watched. Nothing here starts or ends one.

Owns when an endpoint is looked at, its key and its certificate. What an answer means is `runtime.backends.
external`'s business. Must not know replicas or requests.
"""

import asyncio
import contextlib
import logging
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from runtime.backends.base import Availability, Endpoint
from runtime.backends.external import LISTING, Health, Look, Trouble, read_listing
from runtime.endpoint_settings import EndpointSettings
from runtime.engine_http import EngineClient, EngineResponse
from runtime.errors import EngineFailed, EngineUnreachable

logger = logging.getLogger(__name__)

LOOK_TIMEOUT_S = 3.0
MAX_LISTING_BYTES = 4 * 1024 * 1024
MAX_KEY_CHARACTERS = 4096
REMEDY = "`porten doctor` says what to do"


@dataclass(frozen=True, slots=True)
class _Trust:
    """What it takes to be let in, and to know whom one speaks to."""

    headers: tuple[tuple[str, str], ...]
    tls: ssl.SSLContext | None


class OwnersEndpoint:
    """One endpoint. `look` finds out how it is; everything else tells what was found last."""

    def __init__(self, name: str, settings: EndpointSettings) -> None:
        self.name = name
        self.settings = settings
        self.key = f"external:{name}"
        """How offers, reports and the digest of an answer name it: nothing is known of its weights."""
        self._trust: _Trust | None = None
        self._health = Health()
        self._looking = asyncio.Lock()
        self._looked = asyncio.Condition()
        self._told: Mapping[str, Trouble | None] = dict.fromkeys(settings.models)

    def available(self, model_id: str) -> Availability:
        """Whether it serves that model, one of its `models`; why not, in words for whoever asked for it."""
        trouble = self.trouble(model_id)
        if trouble is None:
            return Availability(ok=True)
        return Availability(ok=False, reason=f"the endpoint {self.name!r} {trouble.reason}", remedy=REMEDY)

    def trouble(self, model_id: str) -> Trouble | None:
        """The same for the owner; None where it serves the model."""
        return self._health.trouble_with(self.settings.kind, self.settings.models[model_id])

    def at(self, model_id: str) -> Endpoint:
        """Where that model is asked.

        Raises:
            EngineFailed: it does not serve the model.
        """
        state = self.available(model_id)
        if not state.ok or self._trust is None:
            raise EngineFailed(state.reason)
        return self._endpoint(self._trust, self.settings.models[model_id])

    async def look(self, *, quietly: bool = False) -> None:
        """Ask it for its models, and log what has changed. What keeps it from answering is what was found."""
        async with self._looking:
            self._health = self._health.after(await self._look())
        if not quietly:
            self._log_changes()
        async with self._looked:
            self._looked.notify_all()

    async def lost(self, model_id: str) -> str:
        """Wait until looks find the model gone; returns why."""
        async with self._looked:
            await self._looked.wait_for(lambda: not self.available(model_id).ok)
        return self.available(model_id).reason

    def _log_changes(self) -> None:
        now = {model_id: self.trouble(model_id) for model_id in self.settings.models}
        for model_id, trouble in now.items():
            fields = {"event": "endpoint_availability", "endpoint": self.name, "model": model_id}
            if trouble is not None and trouble != self._told[model_id]:
                fields |= {"reason": trouble.reason, "remedy": trouble.remedy}
                logger.warning("an endpoint does not serve: its model is not offered", extra=fields)
            elif trouble is None and self._told[model_id] is not None:
                logger.info("the endpoint serves", extra=fields)
        self._told = now

    async def _look(self) -> Look:
        try:
            if self._trust is None:
                self._trust = await asyncio.to_thread(_trusted, self.settings)
            async with asyncio.timeout(LOOK_TIMEOUT_S):
                return self._noted(await self._ask(self._trust))
        except _NotTrusted as problem:
            return problem.trouble
        except EngineUnreachable as error:
            self._trust = None
            remedy = "start it, or correct its `url` (a private authority belongs in `ca_file`)"
            return Trouble(_predicate(error), remedy)
        except EngineFailed as error:
            return Trouble(_predicate(error), "look at its own log", is_clear=False)
        except TimeoutError:
            return Trouble("does not answer in time", "look at its own log", is_clear=False)

    def _noted(self, found: Look) -> Look:
        """The key or the authority may be corrected where something is wrong: they are read anew then."""
        if isinstance(found, Trouble) and found.is_clear:
            self._trust = None
        return found

    async def _ask(self, trust: _Trust) -> Look:
        where = self._endpoint(trust)
        client = EngineClient(where.host, where.port, where.tls)
        path = where.base_path + LISTING[self.settings.kind]
        with contextlib.closing(client):
            response = await client.request("GET", path, where.headers)
            return read_listing(self.settings.kind, response.status, await _body(response))

    def _endpoint(self, trust: _Trust, model: str | None = None) -> Endpoint:
        settings = self.settings
        return Endpoint(
            settings.host,
            settings.port,
            settings.base_path,
            trust.headers,
            model,
            trust.tls,
            protocols=frozenset(settings.protocols),
        )


class _NotTrusted(Exception):
    """The key or the authority that the settings name cannot be used."""

    def __init__(self, reason: str, remedy: str) -> None:
        super().__init__(reason)
        self.trouble = Trouble(reason, remedy)


def _trusted(settings: EndpointSettings) -> _Trust:
    headers: tuple[tuple[str, str], ...] = ()
    if settings.api_key_file is not None:
        headers = (("authorization", f"Bearer {_read_key(settings.api_key_file)}"),)
    return _Trust(headers, _context(settings.ca_file) if settings.is_encrypted else None)


def _read_key(file: Path) -> str:
    """The key in a file that nobody else can read; its text goes into no message."""
    try:
        if file.stat().st_mode & 0o077:
            raise _NotTrusted("has a key that others on this machine can read", f"chmod 600 {file}")
        key = file.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is not plain text"
        raise _NotTrusted(
            "has no key that can be read", f"correct its `api_key_file` ({file}: {why})"
        ) from None
    if not key or len(key) > MAX_KEY_CHARACTERS or not key.isprintable() or " " in key:
        raise _NotTrusted("has no key that can be read", f"put the key alone on one line of {file}")
    return key


def _context(ca_file: Path | None) -> ssl.SSLContext:
    context = ssl.create_default_context()
    if ca_file is not None:
        try:
            context.load_verify_locations(cafile=ca_file)
        except (OSError, ssl.SSLError):
            remedy = f"set its `ca_file` to a PEM file with the authority's certificate ({ca_file} is none)"
            raise _NotTrusted("has no authority that can be read", remedy) from None
    return context


async def _body(response: EngineResponse) -> bytes:
    return await response.read_all(MAX_LISTING_BYTES) if response.status == 200 else b""


def _predicate(error: EngineFailed) -> str:
    """The client's words, to go on after the endpoint's name."""
    return str(error).removeprefix("the engine ")
