"""The service's files, judged by systemd itself, and how its manager is asked.

No systemd runs where tests run, so `systemctl` is a script that notes what it was asked; the units are real.
"""

import plistlib
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from runtime.config import load_config
from runtime.errors import ConfigInvalid
from runtime.service import facts_of
from runtime.service_files import UNIT_NAME, ServiceFacts, launchd_plist, systemd_unit

ODD = 'a b%h"c\\d$HOME'
FACTS = ServiceFacts(
    command=(sys.executable, "--config", f"/etc/{ODD}.toml", "run"),
    environment={"PORTEN_DATA_DIR": f"/srv/{ODD}", "PORTEN_MODELS": "a,b"},
    writable=(Path("/srv/a b%h"),),
    drain_s=45,
)


def with_user(facts: ServiceFacts, user: str | None) -> ServiceFacts:
    return ServiceFacts(
        command=facts.command,
        environment=facts.environment,
        writable=facts.writable,
        drain_s=facts.drain_s,
        user=user,
    )


def sections(unit: str) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for line in filter(None, unit.splitlines()):
        if line.startswith("["):
            lines = found.setdefault(line, [])
        else:
            lines.append(line)
    return found


@pytest.fixture
def analyze() -> str:
    """systemd's own judge of units."""
    if path := shutil.which("systemd-analyze"):
        return path
    pytest.skip("no systemd-analyze: on Debian, apt-get install systemd")


@pytest.mark.parametrize("user", [None, "daemon"])
def test_systemd_finds_nothing_wrong_with_the_unit(analyze: str, tmp_path: Path, user: str | None) -> None:
    unit = tmp_path / UNIT_NAME
    unit.write_text(systemd_unit(with_user(FACTS, user)))
    said = subprocess.run(
        [analyze, "verify", *([] if user else ["--user"]), "--man=no", str(unit)],
        capture_output=True,
        text=True,
        check=False,
        env={"XDG_RUNTIME_DIR": str(tmp_path), "PATH": "/usr/bin:/bin"},
    )
    own = [line for line in said.stderr.splitlines() if UNIT_NAME in line]
    assert own == []
    assert said.returncode == 0, said.stderr


def test_systemd_would_find_a_mistake(analyze: str, tmp_path: Path) -> None:
    unit = tmp_path / UNIT_NAME
    unit.write_text(systemd_unit(FACTS).replace("KillMode=mixed", "KillMode=mixd"))
    said = subprocess.run(
        [analyze, "verify", "--user", "--man=no", str(unit)],
        capture_output=True,
        text=True,
        check=False,
        env={"XDG_RUNTIME_DIR": str(tmp_path), "PATH": "/usr/bin:/bin"},
    )
    assert "kill mode" in said.stderr


def test_whatever_is_in_a_path_is_one_word_of_the_unit() -> None:
    lines = sections(systemd_unit(FACTS))["[Service]"]
    assert r'"/etc/a b%%h\"c\\d$$HOME.toml"' in next(line for line in lines if line.startswith("ExecStart="))
    assert r'Environment="PORTEN_DATA_DIR=/srv/a b%%h\"c\\d$HOME"' in lines


def test_a_stop_outlasts_the_drain_and_ends_the_daemon_first() -> None:
    lines = sections(systemd_unit(FACTS))["[Service]"]
    assert {"TimeoutStopSec=75", "KillMode=mixed", "Restart=on-failure", "NoNewPrivileges=yes"} <= {*lines}
    assert not any(line.startswith("User=") for line in lines)


def test_the_systems_service_may_write_to_its_own_places_only() -> None:
    found = sections(systemd_unit(with_user(FACTS, "porten")))
    lines = found["[Service]"]
    assert {"User=porten", "ProtectSystem=strict", "ProtectHome=read-only", "PrivateTmp=yes"} <= {*lines}
    assert 'ReadWritePaths="/srv/a b%%h"' in lines
    assert "CapabilityBoundingSet=" in lines
    assert found["[Install]"] == ["WantedBy=multi-user.target"]


def test_launchd_gets_the_same() -> None:
    document = plistlib.loads(launchd_plist(with_user(FACTS, "porten")))
    assert document["ProgramArguments"] == list(FACTS.command)
    assert document["EnvironmentVariables"] == dict(FACTS.environment)
    assert (document["UserName"], document["ExitTimeOut"]) == ("porten", 75)
    assert document["KeepAlive"] == {"SuccessfulExit": False}


def test_what_is_set_in_the_environment_goes_along_and_a_secret_is_refused(tmp_path: Path) -> None:
    environ = {
        "PORTEN_DATA_DIR": str(tmp_path),
        "PORTEN_MODELS_DIR": "/srv/models",
        "PORTEN_MODELS": "a,b",
        "PORTEN_YIELD_GPU": "false",
        "XDG_CONFIG_HOME": str(tmp_path),
    }
    facts = facts_of(load_config(environ=environ), program=Path("/bin/porten"), user=None, log=None)
    assert facts.command == ("/bin/porten", "run")
    assert facts.writable == (Path("/srv/models"), tmp_path) or facts.writable == (
        tmp_path,
        Path("/srv/models"),
    )
    assert facts.environment["PORTEN_MODELS"] == "a,b"
    assert facts.environment["PORTEN_YIELD_GPU"] == "false"
    assert load_config(environ=dict(facts.environment)).config.yield_gpu is False
    loaded = load_config(environ=environ | {"PORTEN_JOIN_TOKEN": "hunter2"})
    with pytest.raises(ConfigInvalid, match=r"PORTEN_JOIN_TOKEN.*node\.toml") as caught:
        facts_of(loaded, program=Path("/bin/porten"), user=None, log=None)
    assert "hunter2" not in str(caught.value)


@pytest.fixture
def systemctl(porten: Any) -> Path:
    """Where what systemctl was asked is written; it refuses what `refuses` beside it names."""
    tools = porten.home / "tools"
    tools.mkdir()
    asked = tools / "asked"
    script = tools / "systemctl"
    script.write_text(
        f'#!/bin/sh\necho "$*" >>{asked}\n'
        f'if [ -f {tools}/refuses ]; then echo "Failed to connect to bus: No medium found" >&2; exit 1; fi\n'
        'case "$*" in *show*) printf "ActiveState=active\\nSubState=running\\nUnitFileState=enabled\\n'
        'MainPID=42\\nNRestarts=0\\n";; esac\n'
    )
    script.chmod(0o755)
    journal = tools / "journalctl"
    journal.write_text('#!/bin/sh\necho "journal $*"\n')
    journal.chmod(0o755)
    porten.settings["PATH"] = f"{tools}:/usr/bin:/bin"
    return asked


async def test_a_service_is_installed_asked_for_and_taken_away(porten: Any, systemctl: Path) -> None:
    unit = porten.home / "systemd" / "user" / UNIT_NAME
    assert "not installed" in await porten("service", "status", code=1)
    assert "[Service]" in await porten("service", "install", "--show")
    assert not unit.exists()
    said = await porten("service", "install")
    assert str(unit) in said
    assert "loginctl enable-linger" in said
    assert f'"PORTEN_DATA_DIR={porten.home / "data"}"' in unit.read_text()
    assert "active (running), enabled, pid 42" in await porten("service", "status")
    assert f"journal --user --unit={UNIT_NAME} --lines=7 --output=cat --follow" in await porten(
        "logs", "-f", "-n", "7"
    )
    assert "is gone" in await porten("service", "uninstall")
    assert not unit.exists()
    assert "no such service" in await porten("service", "uninstall")
    assert systemctl.read_text().splitlines() == [
        "--user daemon-reload",
        f"--user enable --now {UNIT_NAME}",
        f"--user show {UNIT_NAME} --property=ActiveState,SubState,UnitFileState,MainPID,NRestarts",
        f"--user disable --now {UNIT_NAME}",
    ]


async def test_a_manager_that_refuses_is_quoted_and_nothing_is_left(porten: Any, systemctl: Path) -> None:
    systemctl.with_name("refuses").touch()
    assert "No medium found" in await porten("service", "install", code=1)
    assert not (porten.home / "systemd" / "user" / UNIT_NAME).exists()


async def test_a_node_that_runs_already_is_not_doubled(porten: Any, systemctl: Path) -> None:
    await porten.run("--local-only")
    assert "porten stop" in await porten("service", "install", code=1)
    assert not systemctl.exists()


async def test_the_systems_service_needs_a_user_that_is_not_root(porten: Any, systemctl: Path) -> None:
    assert "is not there yet" in await porten("service", "install", "--system", "--show", code=1)
    (porten.home / "data").mkdir()
    shown = await porten("service", "install", "--system", "--run-as", "nobody", "--show")
    assert "User=nobody" in shown
    assert f'ReadWritePaths="{porten.home / "data"}"' in shown
    assert "--run-as" in await porten("service", "install", "--system", "--run-as", "root", "--show", code=1)


async def test_without_a_service_there_is_no_log(porten: Any, systemctl: Path) -> None:
    assert "porten run" in await porten("logs", code=1)
