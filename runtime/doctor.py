"""What may keep this machine from serving, looked at one by one.

Owns the checks and their remedies; changes nothing. Must not know the terminal.
"""

import os
import shutil
import sys
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

import psutil

from models.errors import ModelsError
from runtime import assembly, devices
from runtime.config import LoadedConfig, NodeConfig
from runtime.control_client import NOT_RUNNING, ControlClient
from runtime.enrollment import HubApi
from runtime.errors import DaemonUnreachable, EnrollmentRefused, RuntimeFault
from runtime.identity import Identity, IdentityStore

LEAST_DISK_BYTES = 2_000_000_000
LEAST_MEMORY_BYTES = 1_000_000_000
DAY_S = 86_400
MOST_CLOCK_ERROR_S = 20.0
"""Tickets are good to half a minute of disagreement; this says so before requests fail."""


class Verdict(StrEnum):
    """How bad it is: a warning leaves the node serving."""

    OK = "ok"
    WARNING = "warning"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at, in words for the owner."""

    verdict: Verdict
    subject: str
    found: str
    remedy: str = ""


async def examine(loaded: LoadedConfig) -> list[Finding]:
    """Look at everything, in the order in which a node needs it."""
    config = loaded.config
    checks: tuple[Callable[[NodeConfig], Awaitable[list[Finding]]], ...] = (
        _machine,
        _directories,
        _engines,
        _catalog,
        _hub,
        _daemon,
    )
    findings = [_ok("settings", str(loaded.file) if loaded.file else "defaults and environment")]
    for check in checks:
        findings += await check(config)
    return findings


def _ok(subject: str, found: str) -> Finding:
    return Finding(Verdict.OK, subject, found)


def _failed(subject: str, found: str, remedy: str) -> Finding:
    return Finding(Verdict.FAILED, subject, found, remedy)


def _warning(subject: str, found: str, remedy: str) -> Finding:
    return Finding(Verdict.WARNING, subject, found, remedy)


async def _machine(config: NodeConfig) -> list[Finding]:
    del config
    found = [_ok("python", sys.version.split()[0])]
    found += [
        _ok(f"device {device.kind}", f"{device.name}, {_gigabytes(device.memory_total)}")
        for device in devices.detect()
    ]
    if driver := devices.unseen_driver():
        remedy = "pip install 'porten[nvidia]' into Porten's environment, or run install.sh again"
        found.append(_warning("device cuda", f"there is a driver ({driver}), not the library for it", remedy))
    available = psutil.virtual_memory().available
    if available < LEAST_MEMORY_BYTES:
        found.append(
            _warning(
                "memory", f"{_gigabytes(available)} available", "end other programs, or use small models"
            )
        )
    else:
        found.append(_ok("memory", f"{_gigabytes(available)} available"))
    return found


async def _directories(config: NodeConfig) -> list[Finding]:
    found = []
    for name in ("data_dir", "models_dir", "state_dir"):
        path: Path = getattr(config, name)
        existing = next(parent for parent in (path, *path.parents) if parent.exists())
        if not _writable(existing):
            found.append(
                _failed(name, f"{existing} cannot be written", f"set {name} to a directory of yours")
            )
    free = shutil.disk_usage(
        next(p for p in (config.models_dir, *config.models_dir.parents) if p.exists())
    ).free
    if free < LEAST_DISK_BYTES:
        found.append(
            _warning(
                "disk", f"{_gigabytes(free)} free", "remove models (`porten models rm`) or set models_dir"
            )
        )
    else:
        found.append(_ok("disk", f"{_gigabytes(free)} free for models"))
    return found


async def _engines(config: NodeConfig) -> list[Finding]:
    found = []
    for backend in assembly.make_backends(config):
        availability = backend.available()
        subject = f"engine {backend.name}"
        if availability.ok:
            found.append(_ok(subject, f"{backend.provider} is installed"))
        else:
            found.append(_failed(subject, availability.reason, availability.remedy))
    return found


async def _catalog(config: NodeConfig) -> list[Finding]:
    try:
        catalog = assembly.open_catalog(config)
    except (ModelsError, RuntimeFault) as error:
        return [_failed("catalog", str(error), "mend the file, or take it out of `catalog`")]
    stored = sum(assembly.open_store(config).find(spec) is not None for spec in catalog)
    return [_ok("catalog", f"{len(catalog)} in it, {stored} on the disk")]


async def _hub(config: NodeConfig) -> list[Finding]:
    store = IdentityStore(config.data_dir)
    if not store.exists():
        return [_not_enrolled(config)]
    try:
        identity = store.load()
    except RuntimeFault as error:
        return [_failed("identity", str(error), "porten logout --force, then porten login")]
    found = [
        _ok("identity", f"{identity.hub.name} ({identity.hub.node_id}), region {identity.credential.region}"),
        _key(identity, store.key_made_at()),
    ]
    try:
        async with HubApi.connect(
            identity.hub.hub_url, ca_file=config.hub_ca_file, proxy=config.proxy
        ) as hub:
            answer = await hub.discover()
    except EnrollmentRefused as error:
        return [*found, _failed("hub", str(error), "check the network; the node keeps trying by itself")]
    if (answer.hub_id, answer.public_key) != (identity.hub.hub_id, identity.hub.public_key):
        return [
            *found,
            _failed("hub", "another Hub answers at that address", "porten logout, then porten login"),
        ]
    return [*found, _ok("hub", f"{identity.hub.hub_url} answers"), _clock(hub.clock_ahead_s)]


def _not_enrolled(config: NodeConfig) -> Finding:
    if config.join_token is None:
        return _warning("identity", "not enrolled", "porten login --hub URL")
    if config.hub_url is None:
        found = "not enrolled, and the JoinToken does not say which Hub it is for"
        return _failed("identity", found, "set hub_url (PORTEN_HUB_URL)")
    return _warning("identity", "not enrolled yet: there is a JoinToken for it", "porten run")


def _key(identity: Identity, made_at: float) -> Finding:
    if identity.next_key is not None:
        return _warning("key", "the change to another one is not finished", "porten rotate-key")
    return _ok("key", f"{max(0.0, time.time() - made_at) / DAY_S:.0f} days old")


def _clock(ahead_s: float | None) -> Finding:
    if ahead_s is None:
        return _ok("clock", "the Hub does not tell its time")
    if abs(ahead_s) > MOST_CLOCK_ERROR_S:
        return _failed(
            "clock", f"{abs(ahead_s):.0f} s apart from the Hub's", "switch time synchronisation on (NTP)"
        )
    return _ok("clock", "agrees with the Hub's")


async def _daemon(config: NodeConfig) -> list[Finding]:
    try:
        async with ControlClient.connect(config.state_dir) as client:
            status = await client.status()
    except DaemonUnreachable as error:
        found = "not running" if str(error) == NOT_RUNNING else str(error)
        return [_warning("node", found, "porten run")]
    except RuntimeFault as error:
        return [_failed("node", str(error), "look at its log")]
    state = status["tunnel"]["state"]
    if state == "quarantined":
        found = "another machine uses this node's key, so the Hub lets neither in"
        return [_failed("node", found, "find the copy; if you cannot, porten logout, then porten login")]
    if state == "refused":
        return [_failed("node", "the Hub refuses it: it was revoked", "porten logout, then porten login")]
    return [_ok("node", f"runs (pid {status['pid']}), tunnel {state}")]


def _writable(directory: Path) -> bool:
    return os.access(directory, os.W_OK | os.X_OK)


def _gigabytes(count: float) -> str:
    return f"{count / 1e9:.1f} GB"
