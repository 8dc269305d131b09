"""What `porten doctor` looks at on this machine: devices, limits, folders, ports, and what is left running.

Changes nothing. Must not know the Hub, or how findings are shown.
"""

import getpass
import importlib
import os
import resource
import shutil
import socket
import stat
import sys
from pathlib import Path

import psutil
from pydantic import SecretStr

from runtime import devices
from runtime.config import LoadedConfig, NodeConfig
from runtime.findings import Finding, failed, gigabytes, ok, warning
from runtime.process import OWNER_MARK, marked, owner_of
from runtime.service import installed_service, lingers
from runtime.service_files import UNIT_NAME
from tunnel.version import __version__

LEAST_DISK_BYTES = 2_000_000_000
LEAST_MEMORY_BYTES = 1_000_000_000
LEAST_FILES = 1024
_MIB = 1024 * 1024


def settings_file(loaded: LoadedConfig) -> Finding:
    """A file that holds a secret is its owner's alone."""
    if loaded.file is None:
        return ok("settings", "defaults and environment")
    secrets = [
        name
        for name, origin in loaded.origins.items()
        if origin == str(loaded.file) and isinstance(getattr(loaded.config, name), SecretStr)
    ]
    if secrets and loaded.file.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO):
        found = f"{loaded.file} holds {', '.join(secrets)} and others can read it"
        return failed("settings", found, f"chmod 600 {loaded.file}")
    return ok("settings", str(loaded.file))


def python(config: NodeConfig) -> list[Finding]:
    """The interpreter."""
    del config
    return [ok("python", sys.version.split()[0])]


def program(config: NodeConfig) -> list[Finding]:
    """Whether all of the daemon can be loaded: of a broken installation its commands may still work."""
    del config
    try:
        importlib.import_module("runtime.node")
    except Exception as error:  # noqa: BLE001 - whatever a broken installation raises
        return [failed("program", f"{type(error).__name__}: {error}", "run install.sh, or porten rollback")]
    return [ok("program", f"porten {__version__}")]


def accelerators(config: NodeConfig) -> list[Finding]:
    """Every device, and a driver that nobody asks."""
    del config
    found = [
        ok(f"device {device.kind}", f"{device.name}, {gigabytes(device.memory_total)}")
        for device in devices.detect()
    ]
    if driver := devices.unseen_driver():
        remedy = "pip install 'porten[nvidia]' into Porten's environment, or run install.sh again"
        found.append(warning("device cuda", f"there is a driver ({driver}), not the library for it", remedy))
    return found


def memory(config: NodeConfig) -> list[Finding]:
    """What is free, and budgets that promise more than there is."""
    available = psutil.virtual_memory().available
    found = [ok("memory", f"{gigabytes(available)} available")]
    if available < LEAST_MEMORY_BYTES:
        remedy = "end other programs, or use small models"
        found = [warning("memory", f"{gigabytes(available)} available", remedy)]
    for name, kind in (("ram_budget_mb", "cpu"), ("vram_budget_mb", "cuda")):
        budget = getattr(config, name)
        totals = [device.memory_total for device in devices.detect() if device.kind == kind]
        if budget is not None:
            found.append(_budget(name, budget * _MIB, totals))
    return found


def _budget(name: str, budget: int, totals: list[int]) -> Finding:
    if not totals:
        return warning(name, "is set, and there is no such device", f"take {name} out of the settings")
    if budget > max(totals):
        found = f"{gigabytes(budget)} is more than the device has ({gigabytes(max(totals))})"
        return warning(name, found, f"set {name} to less; the node takes what there is")
    return ok(name, gigabytes(budget))


def open_files(config: NodeConfig) -> list[Finding]:
    """How many files and connections a process may have open."""
    del config
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= LEAST_FILES:
        return [ok("open files", "no limit" if soft == resource.RLIM_INFINITY else f"{soft} at once")]
    return [
        warning("open files", f"only {soft} at once (at most {hard})", "ulimit -n 65536 before porten run")
    ]


def folders(config: NodeConfig) -> list[Finding]:
    """Those the node writes to, and whether others can look into the one with its key."""
    found = []
    for name in ("data_dir", "models_dir", "engines_dir", "state_dir"):
        path: Path = getattr(config, name)
        existing = _existing(path)
        if not os.access(existing, os.W_OK | os.X_OK):
            found.append(failed(name, f"{existing} cannot be written", f"set {name} to a directory of yours"))
        elif name == "data_dir" and path.exists() and path.stat().st_mode & 0o077:
            found.append(warning(name, f"{path} can be looked into by others", f"chmod 700 {path}"))
        else:
            found.append(ok(name, str(path)))
    return found


def disk(config: NodeConfig) -> list[Finding]:
    """Room for models."""
    free = shutil.disk_usage(_existing(config.models_dir)).free
    if free < LEAST_DISK_BYTES:
        remedy = "remove models (`porten models rm`) or set models_dir"
        return [warning("disk", f"{gigabytes(free)} free", remedy)]
    return [ok("disk", f"{gigabytes(free)} free for models")]


def port(config: NodeConfig) -> Finding:
    """Whether the local API could listen, where no node does yet."""
    host, number = config.local_host, config.local_port
    if number == 0:
        return ok("local port", "a free one is taken")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, number))
        except OSError as error:
            return failed(
                "local port", f"{host}:{number}: {error.strerror}", "set local_port to a free one, or 0"
            )
    return ok("local port", f"{number} is free")


def strays(config: NodeConfig) -> Finding:
    """Engines of a node that is no more."""
    pids = sorted(process.pid for process in marked(OWNER_MARK, owner_of(config.state_dir)))
    if pids:
        found = f"left by a node that is gone: pid {', '.join(map(str, pids))}"
        return warning("engine processes", found, "porten run ends them when it starts")
    return ok("engine processes", "none are left over")


def service(config: NodeConfig) -> list[Finding]:
    """Whether the node starts with the machine, and outlives its user's log-out."""
    del config
    installed = installed_service()
    if installed is None:
        return [ok("service", "none: the node runs where it is started (`porten service install`)")]
    user = getpass.getuser()
    if installed.file.name == UNIT_NAME and Path.home() in installed.file.parents and not lingers(user):
        found = f"{installed.file}, and it ends when {user} logs out"
        return [warning("service", found, "loginctl enable-linger")]
    return [ok("service", str(installed.file))]


def _existing(path: Path) -> Path:
    return next(parent for parent in (path, *path.parents) if parent.exists())
