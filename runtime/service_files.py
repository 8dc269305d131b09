"""The texts that have systemd or launchd run the node. Pure: facts in, a file's content out.

Owns what the service may do on the machine. Must not know where a file goes or how a manager is asked.
"""

import plistlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

UNIT_NAME = "porten.service"
LABEL = "org.porten.node"
_STOP_MARGIN_S = 30
"""Beyond the drain: engines are ended and their memory looked at."""
_FILES = 65_536
COMES_AGAIN = 75
"""Exit code of a node that ended to be started again (EX_TEMPFAIL of sysexits.h)."""


@dataclass(frozen=True, slots=True)
class ServiceFacts:
    """What the service needs to know.

    Attributes:
        command: program and arguments.
        environment: variables, none of them a secret: the file can be read by others.
        writable: directories that it writes to.
        drain_s: seconds in which answers in flight may finish.
        user: who it runs as; None for the one whose own service it is.
        log: where launchd puts the log; systemd has its journal.
    """

    command: tuple[str, ...]
    environment: Mapping[str, str] = field(default_factory=dict)
    writable: tuple[Path, ...] = ()
    drain_s: float = 30.0
    user: str | None = None
    log: Path | None = None

    @property
    def stop_s(self) -> int:
        """Seconds after which a stop is given up and everything killed."""
        return int(self.drain_s) + _STOP_MARGIN_S


def systemd_unit(facts: ServiceFacts) -> str:
    """A unit for the user's own manager; where it is to run as somebody, a hardened one for the system's."""
    is_system = facts.user is not None
    service = [
        "Type=exec",
        f"ExecStart={' '.join(_argument(word) for word in facts.command)}",
        *(f"Environment={_word(f'{name}={value}')}" for name, value in sorted(facts.environment.items())),
        # A node that was told to stop (`porten stop`, `porten logout`) ends with 0 and stays so.
        "Restart=on-failure",
        "RestartSec=5",
        # One that was told to come again, as an upgrade does, has not failed.
        f"SuccessExitStatus={COMES_AGAIN}",
        f"RestartForceExitStatus={COMES_AGAIN}",
        # The daemon first, so that it can drain; whatever is left of its engines after that.
        "KillMode=mixed",
        f"TimeoutStopSec={facts.stop_s}",
        f"LimitNOFILE={_FILES}",
        "UMask=0077",
        "NoNewPrivileges=yes",
        *(_hardening(facts) if is_system else ()),
    ]
    network = ("Wants=network-online.target", "After=network-online.target") if is_system else ()
    target = "multi-user.target" if is_system else "default.target"
    sections = {
        "Unit": ["Description=Porten node", *network, "StartLimitIntervalSec=0"],
        "Service": service,
        "Install": [f"WantedBy={target}"],
    }
    return "\n".join(line for name, lines in sections.items() for line in (f"[{name}]", *lines, ""))


def _hardening(facts: ServiceFacts) -> tuple[str, ...]:
    """GPUs stay in reach (no PrivateDevices), engines may compile as they run (no MemoryDenyWriteExecute)."""
    return (
        f"User={facts.user}",
        "ProtectSystem=strict",
        "ProtectHome=read-only",
        *(f"ReadWritePaths={_word(str(path))}" for path in facts.writable),
        "PrivateTmp=yes",
        "ProtectClock=yes",
        "ProtectControlGroups=yes",
        "ProtectHostname=yes",
        "ProtectKernelLogs=yes",
        "ProtectKernelModules=yes",
        "ProtectKernelTunables=yes",
        "RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6 AF_NETLINK",
        "RestrictNamespaces=yes",
        "RestrictRealtime=yes",
        "RestrictSUIDSGID=yes",
        "LockPersonality=yes",
        "SystemCallArchitectures=native",
        "CapabilityBoundingSet=",
        "AmbientCapabilities=",
    )


def launchd_plist(facts: ServiceFacts) -> bytes:
    """A property list for launchd: an agent of the user, or a daemon where it is to run as somebody."""
    document: dict[str, object] = {
        "Label": LABEL,
        "ProgramArguments": list(facts.command),
        "EnvironmentVariables": dict(facts.environment),
        "RunAtLoad": True,
        "KeepAlive": {"SuccessfulExit": False},
        "ThrottleInterval": 5,
        "ExitTimeOut": facts.stop_s,
        "SoftResourceLimits": {"NumberOfFiles": _FILES},
        "Umask": 0o077,
    }
    if facts.user is not None:
        document["UserName"] = facts.user
    if facts.log is not None:
        document["StandardErrorPath"] = document["StandardOutPath"] = str(facts.log)
    return plistlib.dumps(document)


def starts(text: bytes, program: Path) -> bool:
    """Whether a service's file, of either kind, starts that program."""
    if text.startswith(b"[Unit]"):
        return f"ExecStart={_argument(str(program))} ".encode() in text
    try:
        return bool(plistlib.loads(text)["ProgramArguments"][0] == str(program))
    except (plistlib.InvalidFileException, ValueError, KeyError, IndexError):
        return False


def _word(text: str) -> str:
    """One word of a unit, whatever is in it: quoted, and `%` not taken for a specifier."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%")
    return f'"{escaped}"'


def _argument(text: str) -> str:
    """The same in a command line, where `$` names a variable."""
    return _word(text.replace("$", "$$"))
