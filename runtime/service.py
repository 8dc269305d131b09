"""The node as a service of the machine: systemd's, the user's own or the system's, or launchd's.

Owns where the files go and how each manager is asked. Must not know what the daemon does.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from pydantic import SecretStr

from runtime.config import ENV_PREFIX, LoadedConfig
from runtime.errors import ConfigInvalid, ServiceFailed
from runtime.service_files import LABEL, UNIT_NAME, ServiceFacts, launchd_plist, systemd_unit

_LINGER = Path("/var/lib/systemd/linger")
_ASK_S = 120.0  # a stop may take the whole drain


@dataclass(frozen=True, slots=True)
class ServiceState:
    """What its manager says of it.

    Attributes:
        installed: its file is here.
        active: it runs.
        words: for people.
        pid: of the node, while it runs.
        ended: it does not run, and its manager is not about to start it.
    """

    installed: bool
    active: bool
    words: str
    pid: int | None = None
    ended: bool = False


class Service(Protocol):
    """One way to have the node run by the machine."""

    @property
    def file(self) -> Path:
        """Where it is described."""

    def text(self, facts: ServiceFacts) -> bytes:
        """That file's content."""

    def start(self) -> None:
        """Have the manager read the file, and start the node now and whenever the machine starts."""

    def start_again(self) -> None:
        """Start the node of a service that has ended."""

    def stop(self) -> None:
        """End the node, and do not start it again."""

    def state(self) -> ServiceState:
        """What the manager says."""

    def logs(self, *, lines: int, follow: bool) -> list[str]:
        """The command that shows the log."""


class SystemdService:
    """A systemd unit. Without `system` it is one of the user's own manager."""

    def __init__(self, *, system: bool, config_home: Path) -> None:
        self._system = system
        folder = Path("/etc/systemd/system") if system else config_home / "systemd" / "user"
        self.file = folder / UNIT_NAME

    def text(self, facts: ServiceFacts) -> bytes:
        """The unit."""
        return systemd_unit(facts).encode()

    def start(self) -> None:
        """Enable it, and start it."""
        self._ask("daemon-reload")
        self._ask("enable", "--now", UNIT_NAME)

    def start_again(self) -> None:
        """Start it; whether it starts with the machine stays as it is."""
        self._ask("start", UNIT_NAME)

    def stop(self) -> None:
        """Disable it, and end the node: answers in flight finish first."""
        self._ask("disable", "--now", UNIT_NAME)

    def state(self) -> ServiceState:
        """What `systemctl show` says."""
        if not self.file.exists():
            return ServiceState(installed=False, active=False, words="not installed", ended=True)
        wanted = ("ActiveState", "SubState", "UnitFileState", "MainPID", "NRestarts")
        said = self._ask("show", UNIT_NAME, f"--property={','.join(wanted)}")
        found = dict(line.split("=", 1) for line in said.splitlines() if "=" in line)
        active = found.get("ActiveState", "unknown")
        words = (
            f"{active} ({found.get('SubState', '?')}), {found.get('UnitFileState', '?')}, "
            f"pid {found.get('MainPID', '?')}, {found.get('NRestarts', '?')} restarts"
        )
        return ServiceState(
            installed=True,
            active=active == "active",
            words=words,
            pid=_pid(found.get("MainPID")),
            ended=active in ("inactive", "failed"),
        )

    def logs(self, *, lines: int, follow: bool) -> list[str]:
        """What journalctl is to show."""
        scope = [] if self._system else ["--user"]
        unit = f"--unit={UNIT_NAME}"
        return ["journalctl", *scope, unit, f"--lines={lines}", "--output=cat", *["--follow"] * follow]

    def _ask(self, *words: str) -> str:
        scope = [] if self._system else ["--user"]
        return _ask("systemctl", *scope, *words)


class LaunchdService:
    """A launchd agent of the user, or with `system` a daemon."""

    def __init__(self, *, system: bool, home: Path) -> None:
        self._domain = "system" if system else f"gui/{os.getuid()}"
        folder = Path("/Library/LaunchDaemons") if system else home / "Library" / "LaunchAgents"
        self.file = folder / f"{LABEL}.plist"
        self.log = (Path("/Library/Logs") if system else home / "Library" / "Logs") / "porten.log"

    def text(self, facts: ServiceFacts) -> bytes:
        """The property list."""
        return launchd_plist(facts)

    def start(self) -> None:
        """Load it, which starts it."""
        _ask("launchctl", "bootstrap", self._domain, str(self.file))

    def start_again(self) -> None:
        """Start it."""
        _ask("launchctl", "kickstart", f"{self._domain}/{LABEL}")

    def stop(self) -> None:
        """Unload it, which ends the node."""
        _ask("launchctl", "bootout", f"{self._domain}/{LABEL}")

    def state(self) -> ServiceState:
        """What `launchctl print` says."""
        if not self.file.exists():
            return ServiceState(installed=False, active=False, words="not installed", ended=True)
        said = _ask("launchctl", "print", f"{self._domain}/{LABEL}")
        lines = [line.strip() for line in said.splitlines()]
        state = next((line for line in lines if line.startswith("state =")), "state unknown")
        pid = next((line.removeprefix("pid =") for line in lines if line.startswith("pid =")), None)
        return ServiceState(
            installed=True,
            active=state == "state = running",
            words=state,
            pid=_pid(pid),
            ended="not running" in state,
        )

    def logs(self, *, lines: int, follow: bool) -> list[str]:
        """Its file."""
        return ["tail", "-n", str(lines), *["-f"] * follow, str(self.log)]


def service_of_this_machine(*, system: bool, environ: Mapping[str, str] = os.environ) -> Service:
    """The service of the manager this machine has.

    Raises:
        ServiceFailed: it has none that we know.
    """
    home = Path("~").expanduser()
    if sys.platform == "darwin":
        return LaunchdService(system=system, home=home)
    if shutil.which("systemctl") is None:
        raise ServiceFailed(
            "this machine has neither systemd nor launchd: have its own manager run `porten run`"
        )
    config_home = environ.get("XDG_CONFIG_HOME")
    return SystemdService(system=system, config_home=Path(config_home) if config_home else home / ".config")


def installed_service() -> Service | None:
    """The service that runs the node here, if one is installed: the user's before the system's."""
    for system in (False, True):
        try:
            service = service_of_this_machine(system=system)
        except ServiceFailed:
            return None
        if service.file.exists():
            return service
    return None


def facts_of(
    loaded: LoadedConfig,
    *,
    program: Path,
    user: str | None,
    log: Path | None,
    also_writable: tuple[Path, ...] = (),
) -> ServiceFacts:
    """What the service is to be told: these settings, as they are now.

    Raises:
        ConfigInvalid: a secret is in the environment only, and a service's file is no place for it.
    """
    config = loaded.config
    environment = {f"{ENV_PREFIX}DATA_DIR": str(config.data_dir)}
    for name, origin in loaded.origins.items():
        value = getattr(config, name)
        if origin != f"{ENV_PREFIX}{name.upper()}" or value is None:
            continue
        if isinstance(value, SecretStr):
            raise ConfigInvalid(f"{origin} is a secret: put {name} into {loaded.usual_file}, mode 0600")
        environment[origin] = _as_variable(value)
    places = {config.data_dir, config.models_dir, config.engines_dir, config.state_dir, *also_writable}
    return ServiceFacts(
        command=(str(program), *(["--config", str(loaded.file)] if loaded.file else []), "run"),
        environment=environment,
        writable=tuple(sorted(path for path in places if not any(p in places for p in path.parents))),
        drain_s=config.drain_s,
        user=user,
        log=log,
    )


def install(service: Service, facts: ServiceFacts) -> None:
    """Describe the service and start it; what could not be started is taken away again.

    Raises:
        ServiceFailed: the file cannot be written, or the manager refuses it.
    """
    try:
        service.file.parent.mkdir(parents=True, exist_ok=True)
        service.file.write_bytes(service.text(facts))
    except OSError as error:
        raise ServiceFailed(
            f"{service.file} cannot be written: {error.strerror} (sudo for --system)"
        ) from None
    try:
        service.start()
    except ServiceFailed:
        service.file.unlink(missing_ok=True)
        raise


def uninstall(service: Service) -> bool:
    """End the node and forget the service; returns whether there was one."""
    if not service.file.exists():
        return False
    service.stop()
    try:
        service.file.unlink()
    except OSError as error:
        raise ServiceFailed(f"{service.file} cannot be removed: {error.strerror}") from None
    return True


def lingers(user: str) -> bool:
    """Whether systemd keeps the user's services without anybody logged in."""
    return (_LINGER / user).exists()


def _pid(text: str | None) -> int | None:
    try:
        return int(text or 0) or None
    except ValueError:
        return None


def _as_variable(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)


def _ask(*command: str) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_ASK_S, check=False)  # noqa: S603 - our own words
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ServiceFailed(f"`{' '.join(command)}` did not work: {error}") from None
    if done.returncode:
        said = (done.stderr or done.stdout).strip().splitlines()
        raise ServiceFailed(f"`{' '.join(command)}` failed: {said[-1] if said else done.returncode}")
    return done.stdout
