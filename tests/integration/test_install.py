"""install.sh: what it says, what it changes, and that a second run and an uninstall are clean."""

import os
import re
import shutil
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def run(
    *arguments: str, home: Path, script: str | None = None, **environment: str
) -> subprocess.CompletedProcess[str]:
    """Run the script as a user whose home is `home`; pip keeps its own cache and settings.

    The script is the project's, or the one that is piped in.
    """
    cache = subprocess.run(
        [sys.executable, "-m", "pip", "cache", "dir"], capture_output=True, text=True, check=True
    )
    kept = {k: v for k, v in os.environ.items() if k == "PATH" or k.startswith(("PIP_", "SSL_", "LANG"))}
    return subprocess.run(
        ["sh", *(("-s", "--") if script else (str(ROOT / "install.sh"),)), *arguments],
        env=kept
        | {"HOME": str(home), "PIP_CACHE_DIR": cache.stdout.strip(), "PYTHON": sys.executable}
        | environment,
        input=script or "",
        capture_output=True,
        text=True,
        timeout=400,
        check=False,
    )


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Address of a real Hub."""
    environment = os.environ | {
        "PORTEN_HUB_DATA_DIR": str(tmp_path_factory.mktemp("hub")),
        "PORTEN_HUB_PORT": "0",
        "PORTEN_HUB_TUNNEL_PORT": "0",
    }
    program = Path(sys.executable).parent / "porten-hub"
    init = [program, "init", "--email", "a@b.example", "--password-file", "-"]
    subprocess.run(init, env=environment, input="a long password", text=True, check=True, timeout=60)
    with subprocess.Popen([program, "serve"], env=environment, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        yield process.stdout.readline().split("api=")[1].split()[0]
        process.terminate()


def served(hub: str, *arguments: str, home: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the script as a Hub hands it out: ``curl … | sh -s -- arguments``."""
    with urllib.request.urlopen(f"{hub}/install.sh", timeout=20) as answer:
        script = answer.read().decode()
    return run(*arguments, home=home, script=script, **environment)


def test_a_hub_without_its_program_leaves_nothing_behind(hub: str, tmp_path: Path) -> None:
    """Whoever is in between may send another file: its digest is not the one in the script."""
    with urllib.request.urlopen(f"{hub}/install.sh", timeout=20) as answer:
        script = re.sub(r"(?m)^PROGRAM_SHA256=.*", f"PROGRAM_SHA256={'0' * 64}", answer.read().decode())
    said = run("--no-engine", "--no-login", home=tmp_path, script=script, TMPDIR=str(tmp_path))
    assert said.returncode == 1
    assert "not the program that this script names" in said.stderr
    assert list(tmp_path.iterdir()) == []


def test_what_a_hub_hands_out_is_said_before_it_is_fetched(hub: str, tmp_path: Path) -> None:
    said = served(hub, "--dry-run", home=tmp_path)
    assert said.returncode == 0, said.stderr
    assert f"would fetch: {hub}/install/porten-" in said.stdout
    assert f"porten login --hub {hub}" in said.stdout
    assert list(tmp_path.iterdir()) == []


def test_a_dry_run_changes_nothing(tmp_path: Path) -> None:
    said = run("--dry-run", "--hub", "http://127.0.0.1:9", home=tmp_path)
    assert said.returncode == 0, said.stderr
    assert "porten[node]" in said.stdout
    assert "would run" in said.stdout
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("arguments", [["--nonsense"], ["--hub"]])
def test_wrong_options_are_usage_errors(tmp_path: Path, arguments: list[str]) -> None:
    said = run(*arguments, home=tmp_path)
    assert said.returncode == 2
    assert "--help" in said.stderr


def test_a_hub_that_is_no_url_is_refused(tmp_path: Path) -> None:
    said = run("--hub", "hub.example.org", home=tmp_path)
    assert said.returncode == 1
    assert "https://" in said.stderr


def test_an_old_python_is_found_out_first(tmp_path: Path) -> None:
    tools = tmp_path / "bin"
    tools.mkdir()
    for name in ("sh", "uname", "id", "dirname", "readlink"):
        (tools / name).symlink_to(str(shutil.which(name)))
    said = run("--hub", "http://127.0.0.1:9", home=tmp_path, PATH=str(tools), PYTHON="no-such-python")
    assert said.returncode == 1
    assert "3.11" in said.stderr


def test_a_script_cut_short_runs_nothing(tmp_path: Path) -> None:
    whole = (ROOT / "install.sh").read_text()
    (tmp_path / "cut.sh").write_text(whole[: whole.rindex('main "$@"')])
    said = subprocess.run(
        ["sh", str(tmp_path / "cut.sh")],
        capture_output=True,
        text=True,
        check=True,
        env={"HOME": str(tmp_path)},
    )
    assert said.stdout == ""


def test_without_a_release_it_says_so_and_leaves_nothing_half_made(tmp_path: Path) -> None:
    said = run("--no-engine", "--no-login", home=tmp_path, PIP_NO_INDEX="1")
    assert said.returncode == 1
    assert "install.sh: pip could not install porten[node]" in said.stderr
    assert "--from" in said.stderr
    assert not list((tmp_path / ".local" / "share" / "porten" / "program" / "versions").iterdir())


@pytest.mark.parametrize("enrolled", [True, False])
def test_an_uninstall_says_only_what_is_true(tmp_path: Path, enrolled: bool) -> None:
    data = tmp_path / ".local" / "share" / "porten"
    (data / "models").mkdir(parents=True)
    if enrolled:
        (data / "identity").mkdir()
        (data / "identity" / "credential.jwt").touch()
    kept = run("--uninstall", home=tmp_path)
    assert "models" in kept.stdout
    assert ("identity" in kept.stdout) == enrolled
    purged = run("--uninstall", "--purge", home=tmp_path)
    assert ("still lists this node" in purged.stdout) == enrolled
    assert not data.exists()


def older_layout(home: Path, *, runs: bool) -> Path:
    """One environment, as it was laid out before versions lay side by side."""
    old = home / ".local" / "share" / "porten" / "venv"
    (old / "bin").mkdir(parents=True)
    (old / "bin" / "porten").write_text(f"#!/bin/sh\nexit {int(not runs)}\n")
    (old / "bin" / "porten").chmod(0o755)
    return old


def test_a_node_of_the_older_layout_is_not_replaced_as_it_runs(tmp_path: Path) -> None:
    old = older_layout(tmp_path, runs=True)
    said = run("--no-engine", "--no-login", home=tmp_path)
    assert said.returncode == 1
    assert "porten stop" in said.stderr
    assert [each.name for each in old.parent.iterdir()] == ["venv"]


def test_a_service_of_the_older_layout_is_ended_first(tmp_path: Path) -> None:
    old = older_layout(tmp_path, runs=False)
    unit = tmp_path / ".config" / "systemd" / "user" / "porten.service"
    unit.parent.mkdir(parents=True)
    unit.write_text(f'[Service]\nExecStart="{old}/bin/porten" "run"\n')
    said = run("--no-engine", "--no-login", home=tmp_path)
    assert said.returncode == 1
    assert "porten service uninstall" in said.stderr
    assert [each.name for each in old.parent.iterdir()] == ["venv"]


def with_a_service(home: Path) -> str:
    """A unit as `porten service install` leaves it, and the PATH on which a systemctl says yes to all."""
    unit = home / ".config" / "systemd" / "user" / "porten.service"
    unit.parent.mkdir(parents=True)
    unit.touch()
    tools = home / "tools"
    tools.mkdir()
    (tools / "systemctl").write_text(f'#!/bin/sh\necho "$*" >>{tools}/asked\n')
    (tools / "systemctl").chmod(0o755)
    return f"{tools}{os.pathsep}{os.environ['PATH']}"


def start_node(porten: Path, home: Path) -> subprocess.Popen[str]:
    """A node of the installed program, once it has started."""
    node = subprocess.Popen(
        [porten, "run", "--local-only"],
        env={"HOME": str(home), "PATH": os.environ["PATH"], "PORTEN_LOCAL_PORT": "0"},
        stderr=subprocess.PIPE,
        text=True,
    )
    assert node.stderr is not None
    assert any("node started" in line for line in node.stderr)
    return node


@pytest.mark.timeout(600)
def test_install_again_and_uninstall(hub: str, tmp_path: Path) -> None:
    first = served(hub, "--no-engine", home=tmp_path)
    assert first.returncode == 0, first.stderr
    assert f"porten login --hub {hub}" in first.stdout
    assert len(first.stdout.splitlines()) < 20, "pip's own lines are left out"
    origin = tmp_path / ".local" / "share" / "porten" / "program" / "from-hub"
    assert origin.read_text() == f"{hub}\n"
    porten = tmp_path / ".local" / "bin" / "porten"
    version = subprocess.run([porten, "version"], capture_output=True, text=True, check=True)
    assert version.stdout.strip()
    data = tmp_path / ".local" / "share" / "porten"
    (data / "identity").mkdir(parents=True)
    (data / "identity" / "credential.jwt").touch()
    with start_node(porten, tmp_path) as node:
        again = run("--from", str(ROOT), "--no-engine", "--no-login", home=tmp_path)
        assert again.returncode == 0, again.stderr
        assert "restart it" in again.stdout
        assert len(list((data / "program" / "versions").iterdir())) == 2, "it was put beside the first"
        assert not origin.exists(), "it came from elsewhere"
        (data / "models").mkdir(exist_ok=True)
        gone = run("--uninstall", home=tmp_path, PATH=with_a_service(tmp_path))
        assert gone.returncode == 0, gone.stderr
        assert "disable --now porten.service" in (tmp_path / "tools" / "asked").read_text()
        assert not list((tmp_path / ".config" / "systemd" / "user").iterdir()), "the unit is gone"
        assert node.wait(60) == 0, "the node was stopped first"
    assert not porten.is_symlink()
    assert not (data / "program").exists()
    assert (data / "models").is_dir(), "models stay without --purge"
    assert run("--uninstall", "--purge", home=tmp_path).returncode == 0
    assert not data.exists()
