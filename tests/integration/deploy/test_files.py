"""The unit, the image and the compose file: what they name exists, and their programs take them."""

import http.server
import json
import re
import shutil
import subprocess
import sys
import threading
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from hub.config import HubConfig, variable

ROOT = Path(__file__).parents[3]
DEPLOY = ROOT / "deploy"
CONFIG = HubConfig(data_dir=Path("/data"))
SETTINGS = {variable(name) for name in HubConfig.model_fields}
UNIT = (DEPLOY / "porten-hub.service").read_text()
WORST_SCORE = 1.5


# --- systemd


@pytest.fixture
def analyze() -> str:
    """systemd's own judge of units."""
    if path := shutil.which("systemd-analyze"):
        return path
    pytest.skip("no systemd-analyze: on Debian, apt-get install systemd")


def verified(analyze: str, tmp_path: Path, text: str) -> subprocess.CompletedProcess[str]:
    """What systemd says of the unit, its program being one that is there."""
    unit = tmp_path / "porten-hub.service"
    unit.write_text(text.replace("/opt/porten-hub/bin/porten-hub", sys.executable))
    return subprocess.run(
        [analyze, "verify", "--man=no", str(unit)],
        capture_output=True,
        text=True,
        check=False,
        env={"XDG_RUNTIME_DIR": str(tmp_path), "PATH": "/usr/bin:/bin"},
    )


def test_systemd_finds_nothing_wrong_with_the_unit_and_would_find_a_mistake(
    analyze: str, tmp_path: Path
) -> None:
    said = verified(analyze, tmp_path, UNIT)
    assert [line for line in said.stderr.splitlines() if "porten-hub.service" in line] == []
    assert said.returncode == 0, said.stderr
    wrong = verified(analyze, tmp_path, UNIT.replace("ProtectSystem=strict", "ProtectSystm=strict"))
    assert "ProtectSystm" in wrong.stderr


def test_the_unit_with_its_password_lines_is_sound_too(analyze: str, tmp_path: Path) -> None:
    said = verified(
        analyze, tmp_path, re.sub(r"^# (LoadCredential|Environment)=", r"\1=", UNIT, flags=re.MULTILINE)
    )
    assert [line for line in said.stderr.splitlines() if "porten-hub.service" in line] == []


def test_the_units_exposure_is_as_low_as_the_page_says(analyze: str) -> None:
    said = subprocess.run(
        [analyze, "security", "--offline=true", str(DEPLOY / "porten-hub.service")],
        capture_output=True,
        text=True,
        check=False,
    )
    [score] = re.findall(r"Overall exposure level for porten-hub.service: ([0-9.]+)", said.stdout)
    assert float(score) <= WORST_SCORE
    [written] = re.findall(r"rates its exposure ([0-9.]+)", (ROOT / "docs" / "deployment.md").read_text())
    assert float(written) <= WORST_SCORE


def test_the_unit_names_settings_that_there_are_and_waits_for_the_drain() -> None:
    named = set(re.findall(r"(PORTEN_HUB_[A-Z_]+)=", UNIT))
    assert named - SETTINGS == set()
    [stop] = re.findall(r"^TimeoutStopSec=(\d+)$", UNIT, flags=re.MULTILINE)
    assert int(stop) > CONFIG.drain_s


# --- containers


def compose() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
    return found


def test_every_container_is_read_only_without_capabilities_or_a_way_to_gain_one() -> None:
    for name, service in compose()["services"].items():
        assert service["read_only"] is True, name
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert not service.get("privileged"), name
    assert "cap_add" not in compose()["services"]["hub"]


def test_secrets_are_files_and_the_database_is_reached_by_the_hub_alone() -> None:
    document = compose()
    services = document["services"]
    for service in services.values():
        for name, value in service.get("environment", {}).items():
            assert "PASSWORD" not in name or str(value).startswith("/run/secrets/"), name
    assert document["networks"]["inside"]["internal"] is True
    assert [name for name, each in services.items() if "inside" in each["networks"]] == ["database", "hub"]
    assert [name for name, each in services.items() if "ports" in each] == ["caddy"]


def test_the_hubs_variables_are_settings_with_values_that_it_takes() -> None:
    hub = compose()["services"]["hub"]
    dockerfile = (DEPLOY / "Dockerfile").read_text()
    given = dict(re.findall(r"(PORTEN_HUB_[A-Z_]+)=(\S+)", dockerfile)) | hub["environment"]
    assert given.keys() - SETTINGS == set()
    values = {
        name.removeprefix("PORTEN_HUB_").lower(): re.sub(r"\$\{HUB_NAME[^}]*\}", "hub.example.org", value)
        for name, value in given.items()
    }
    config = HubConfig(**values)
    assert config.public_url == "https://hub.example.org"
    assert config.tunnel_urls == ("wss://hub.example.org/tunnel",)
    assert config.trusted_proxies == (compose()["networks"]["edge"]["ipam"]["config"][0]["subnet"],)
    assert config.database_url.startswith("postgresql://")
    assert int(hub["stop_grace_period"].removesuffix("s")) > CONFIG.drain_s


def test_caddy_takes_its_file_and_it_leads_to_the_hub(caddy: str) -> None:
    said = subprocess.run(
        [
            caddy,
            "adapt",
            "--validate",
            "--adapter",
            "caddyfile",
            "--config",
            str(DEPLOY / "compose.Caddyfile"),
        ],
        capture_output=True,
        text=True,
        check=False,
        env={"HUB_NAME": "hub.example.org", "HOME": "/tmp", "PATH": "/usr/bin:/bin"},
    )
    assert said.returncode == 0, said.stderr
    dialled = set(re.findall(r'"dial":\s*"([^"]+)"', said.stdout))
    assert dialled == {f"hub:{CONFIG.port}", f"hub:{CONFIG.tunnel_port}"}


def instructions() -> list[tuple[str, str]]:
    """The Dockerfile's instructions, continued lines joined, comments left out."""
    lines = [line for line in (DEPLOY / "Dockerfile").read_text().splitlines() if not line.startswith("#")]
    joined = re.sub(r"\\\n\s*", " ", "\n".join(lines))
    parts = (line.partition(" ") for line in joined.splitlines() if line)
    return [(name, rest) for name, _, rest in parts]


def test_the_image_is_built_of_what_is_there_in_stages_and_runs_as_nobody_in_particular() -> None:
    found = instructions()
    stages = [number for number, (name, _) in enumerate(found) if name == "FROM"]
    assert len(stages) == 2
    final = found[stages[-1] :]
    assert [value for name, value in final if name == "USER"] == ["10001:10001"]
    assert {"HEALTHCHECK", "ENTRYPOINT", "CMD", "STOPSIGNAL", "VOLUME"} <= {name for name, _ in final}
    assert "ADD" not in {name for name, _ in found}
    for name, value in found[: stages[-1]]:
        if name == "COPY":
            assert all((ROOT / source).exists() for source in value.split()[:-1]), value
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    [extras] = re.findall(r"\.\[([a-z,]+)\]", (DEPLOY / "Dockerfile").read_text())
    assert set(extras.split(",")) <= project["optional-dependencies"].keys()


def test_all_that_is_copied_is_let_through_to_the_build() -> None:
    let = re.findall(r"^!(\S+)$", (DEPLOY / "Dockerfile.dockerignore").read_text(), flags=re.MULTILINE)
    copied = [
        value.split()[:-1] for name, value in instructions() if name == "COPY" and "--from" not in value
    ]
    assert sorted(let) == sorted(source for sources in copied for source in sources)


def test_the_images_health_check_tells_a_hub_that_answers_from_one_that_does_not() -> None:
    [check] = [value for name, value in instructions() if name == "HEALTHCHECK"]
    argv = json.loads(check.partition("CMD ")[2])

    class Answering(http.server.BaseHTTPRequestHandler):
        status = 200

        def do_GET(self) -> None:
            self.send_response(self.status if self.path == "/healthz" else 404)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answering) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        command = [sys.executable, *argv[1:-1], argv[-1].replace(str(CONFIG.port), str(server.server_port))]

        def healthy() -> bool:
            return subprocess.run(command, capture_output=True, check=False).returncode == 0

        assert healthy()
        Answering.status = 503
        assert not healthy()
        server.shutdown()
    assert not healthy()
