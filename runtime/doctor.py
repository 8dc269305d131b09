"""What may keep this machine from serving, looked at one by one.

Owns the order of the checks, and those of engines, models, Hub and daemon; the machine's own are in
`runtime.machine_checks`. Changes nothing. Must not know the terminal.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import urlsplit

from models.errors import ModelsError
from runtime import assembly, devices, machine_checks
from runtime.backends.base import Availability, Backend
from runtime.config import LoadedConfig, NodeConfig
from runtime.control_client import NOT_RUNNING, ControlClient
from runtime.enrollment import HubApi, HubDescription
from runtime.errors import ConfigInvalid, DaemonUnreachable, EnrollmentRefused, RuntimeFault
from runtime.external import OwnersEndpoint
from runtime.findings import Finding, Verdict, failed, gigabytes, ok, warning
from runtime.hub_http import tls_context
from runtime.identity import Identity, IdentityStore
from runtime.pause import PauseFile
from tunnel.version import __version__

__all__ = ["Finding", "Verdict", "examine"]

DAY_S = 86_400
MOST_CLOCK_ERROR_S = 20.0
"""Tickets are good to half a minute of disagreement; this says so before requests fail."""
_PROXY_S = 5.0

Check = Callable[[NodeConfig], Awaitable[list[Finding]]]


async def examine(loaded: LoadedConfig) -> list[Finding]:
    """Look at everything, in the order in which a node needs it."""
    findings = [machine_checks.settings_file(loaded)]
    for look in (
        machine_checks.program,
        machine_checks.python,
        machine_checks.accelerators,
        machine_checks.memory,
        machine_checks.open_files,
        machine_checks.folders,
        machine_checks.disk,
        machine_checks.service,
    ):
        findings += await asyncio.to_thread(look, loaded.config)
    checks: tuple[Check, ...] = (_engines, _endpoints, _catalog, _way_out, _hub, _daemon)
    for check in checks:
        findings += await check(loaded.config)
    return findings


async def _engines(config: NodeConfig) -> list[Finding]:
    """One engine is enough to serve: those that are not there are a choice, as long as one is."""
    try:
        states = [(backend, backend.available()) for backend in assembly.make_backends(config)]
    except ConfigInvalid as error:
        return [failed("engines", str(error), "mend the setting (`porten config show`)")]
    # Where none is, nor an endpoint in its place, the first is the one to install.
    missed = None if config.endpoints or any(state.ok for _, state in states) else states[0][0]
    return [_engine(backend, state, missed=backend is missed) for backend, state in states]


def _engine(backend: Backend, state: Availability, *, missed: bool) -> Finding:
    subject = f"engine {backend.name}"
    serves = f"{' and '.join(sorted(backend.formats))} on {' or '.join(backend.device_kinds)}"
    if state.ok:
        return ok(subject, f"{backend.provider} is installed: serves {serves}")
    if missed:
        return failed(subject, state.reason, state.remedy)
    return ok(subject, f"{state.reason}; it would serve {serves} ({state.remedy})")


async def _endpoints(config: NodeConfig) -> list[Finding]:
    """Each endpoint of the owner's, and whether it has what the owner says it serves."""
    endpoints = assembly.make_endpoints(config)
    await asyncio.gather(*(endpoint.look(quietly=True) for endpoint in endpoints))
    return [_endpoint(endpoint) for endpoint in endpoints]


def _endpoint(endpoint: OwnersEndpoint) -> Finding:
    subject, settings = f"endpoint {endpoint.name}", endpoint.settings
    troubles = {model_id: endpoint.trouble(model_id) for model_id in settings.models}
    for model_id, trouble in troubles.items():
        if trouble is not None:
            return failed(subject, f"{trouble.reason} ({model_id} is not offered)", trouble.remedy)
    serves = f"serves {', '.join(settings.models)}, {settings.slots} at once"
    if not settings.is_here and not settings.is_encrypted:
        found = f"{serves}; prompts and answers travel to it unencrypted"
        return warning(subject, found, "give it an https url, unless the network between encrypts")
    return ok(subject, serves)


async def _catalog(config: NodeConfig) -> list[Finding]:
    try:
        catalog = assembly.open_catalog(config)
    except (ModelsError, RuntimeFault) as error:
        return [failed("catalog", str(error), "mend the file, or take it out of `catalog`")]
    stored = sum(assembly.open_store(config).find(spec) is not None for spec in catalog)
    room = max(device.memory_total for device in devices.detect())
    small = sum((spec.size_bytes or 0) < room for spec in catalog)
    found = [ok("catalog", f"{len(catalog)} in it, {stored} on the disk")]
    if not small:
        return [
            *found,
            warning("models", f"none is smaller than {gigabytes(room)}", "add smaller ones to `catalog`"),
        ]
    return [
        *found,
        ok("models", f"smaller than the largest device: {small}; `porten models list` says which fit"),
    ]


async def _way_out(config: NodeConfig) -> list[Finding]:
    """What lies between this machine and the Hub."""
    return [_authority(config), await _proxy(config)]


def _authority(config: NodeConfig) -> Finding:
    if config.hub_ca_file is None:
        return ok("hub_ca_file", "none: the system's authorities count")
    try:
        tls_context(config.hub_ca_file)
    except EnrollmentRefused as error:
        return failed("hub_ca_file", str(error), "set it to a PEM file with the authority's certificate")
    return ok("hub_ca_file", str(config.hub_ca_file))


async def _proxy(config: NodeConfig) -> Finding:
    """Never quotes the setting: it may hold a password."""
    if config.proxy is None:
        return ok("proxy_url", "none: the Hub is reached directly")
    parts = urlsplit(config.proxy)
    place = f"{parts.hostname}:{parts.port or 80}"
    try:
        async with asyncio.timeout(_PROXY_S):
            _, writer = await asyncio.open_connection(parts.hostname, parts.port or 80)
    except (OSError, TimeoutError):
        return failed("proxy_url", f"nothing answers at {place}", "set proxy_url, or start the proxy")
    writer.close()
    await writer.wait_closed()
    return ok("proxy_url", f"{place} can be reached")


async def _hub(config: NodeConfig) -> list[Finding]:
    store = IdentityStore(config.data_dir)
    if not store.exists():
        return [_not_enrolled(config)]
    try:
        identity = store.load()
    except RuntimeFault as error:
        return [failed("identity", str(error), "porten logout --force, then porten login")]
    found = [
        ok("identity", f"{identity.hub.name} ({identity.hub.node_id}), region {identity.credential.region}"),
        _key(identity, store.key_made_at()),
    ]
    try:
        async with HubApi.connect(
            identity.hub.hub_url, ca_file=config.hub_ca_file, proxy=config.proxy
        ) as hub:
            answer = await hub.discover()
    except EnrollmentRefused as error:
        return [*found, failed("hub", str(error), "check the network; the node keeps trying by itself")]
    if (answer.hub_id, answer.public_key) != (identity.hub.hub_id, identity.hub.public_key):
        return [
            *found,
            failed("hub", "another Hub answers at that address", "porten logout, then porten login"),
        ]
    return [
        *found,
        ok("hub", f"{identity.hub.hub_url} answers"),
        _version(answer),
        _clock(hub.clock_ahead_s),
    ]


def _not_enrolled(config: NodeConfig) -> Finding:
    if config.join_token is None:
        return warning("identity", "not enrolled", "porten login --hub URL")
    if config.hub_url is None:
        found = "not enrolled, and the JoinToken does not say which Hub it is for"
        return failed("identity", found, "set hub_url (PORTEN_HUB_URL)")
    return warning("identity", "not enrolled yet: there is a JoinToken for it", "porten run")


def _key(identity: Identity, made_at: float) -> Finding:
    if identity.next_key is not None:
        return warning("key", "the change to another one is not finished", "porten rotate-key")
    return ok("key", f"{max(0.0, time.time() - made_at) / DAY_S:.0f} days old")


def _version(hub: HubDescription) -> Finding:
    """A Hub that is ahead or behind may well work; whoever upgrades wants to know."""
    if not hub.version:
        return ok("hub version", "not told")
    if _series(hub.version) != _series(__version__):
        found = f"the Hub is {hub.version}, this node {__version__}"
        return warning(
            "hub version", found, "bring the older of the two up to date (the node: porten upgrade)"
        )
    return ok("hub version", hub.version)


def _series(version: str) -> list[str]:
    return version.split(".")[:2]


def _clock(ahead_s: float | None) -> Finding:
    if ahead_s is None:
        return ok("clock", "the Hub does not tell its time")
    if abs(ahead_s) > MOST_CLOCK_ERROR_S:
        return failed(
            "clock", f"{abs(ahead_s):.0f} s apart from the Hub's", "switch time synchronisation on (NTP)"
        )
    return ok("clock", "agrees with the Hub's")


async def _daemon(config: NodeConfig) -> list[Finding]:
    try:
        async with ControlClient.connect(config.state_dir) as client:
            status = await client.status()
    except DaemonUnreachable as error:
        return [*await asyncio.to_thread(_absent, config), _not_running(str(error))]
    except RuntimeFault as error:
        return [failed("node", str(error), "look at its log (`porten logs`)")]
    return [
        ok("local port", f"the node listens: {status['local_api']}"),
        _working(status),
        _session(status),
        *_loads(status),
    ]


def _loads(status: dict[str, Any]) -> list[Finding]:
    """The models whose last load failed, as far as the running node knows."""
    return [
        warning(
            f"model {model['model']}", model["error"], f"mend it, then porten models pull {model['model']}"
        )
        for model in status["models"]
        if model["error"]
    ]


def _absent(config: NodeConfig) -> list[Finding]:
    """What could keep a node from starting, where none runs."""
    found = [machine_checks.port(config), machine_checks.strays(config)]
    if PauseFile(config.state_dir).read() is not None:
        return [*found, warning("work", "it would start paused by its owner", "porten resume")]
    return [*found, ok("work", "it would start working")]


def _not_running(said: str) -> Finding:
    return warning("node", "not running" if said == NOT_RUNNING else said, "porten run")


def _working(status: dict[str, Any]) -> Finding:
    owner = status.get("owner") or {}
    if reason := owner.get("reason"):
        remedy = (
            "porten resume" if "owner" in owner["causes"] else "it takes up work by itself once that is over"
        )
        return warning("work", reason, remedy)
    return ok("work", "it gives its machine to nobody else now")


def _session(status: dict[str, Any]) -> Finding:
    state = status["tunnel"]["state"]
    if state == "quarantined":
        found = "another machine uses this node's key, so the Hub lets neither in"
        return failed("node", found, "find the copy; if you cannot, porten logout, then porten login")
    if state == "refused":
        return failed("node", "the Hub refuses it: it was revoked", "porten logout, then porten login")
    if status["tunnel"].get("draining"):
        found = "on drain: the Hub gives it no new requests"
        return warning("node", found, "resume it on its page in the portal, once it is to work again")
    return ok("node", f"runs (pid {status['pid']}), tunnel {state}")
