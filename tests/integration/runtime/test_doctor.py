"""`porten doctor` finds what is wrong, says what to do, and ends with 1 only where something must be done."""

import json
import socket
from typing import Any

import pytest


async def findings(porten: Any, code: int = 1) -> dict[str, dict[str, str]]:
    found = json.loads(await porten("doctor", "--json", code=code))
    return {finding["subject"]: finding for finding in found}


async def test_everything_is_looked_at_and_what_is_not_well_has_a_remedy(porten: Any) -> None:
    found = await findings(porten)
    assert len(found) >= 15
    assert all(finding["remedy"] for finding in found.values() if finding["verdict"] != "ok")
    assert found["engine llama_cpp"]["verdict"] == "failed", "no engine is installed here"
    assert found["node"]["remedy"] == "porten run"


@pytest.mark.parametrize(
    ("variable", "value", "subject"),
    [
        ("PORTEN_HUB_CA_FILE", "/nowhere/ca.pem", "hub_ca_file"),
        ("PORTEN_PROXY_URL", "http://user:hunter2@127.0.0.1:1", "proxy_url"),
    ],
)
async def test_a_setting_that_cannot_work_is_found(
    porten: Any, variable: str, value: str, subject: str
) -> None:
    assert (await findings(porten))[subject]["verdict"] == "ok"
    porten.settings[variable] = value
    found = (await findings(porten))[subject]
    assert found["verdict"] == "failed"
    assert "hunter2" not in str(found)


async def test_a_budget_beyond_the_machine_and_one_for_no_device_are_found(porten: Any) -> None:
    porten.settings["PORTEN_RAM_BUDGET_MB"] = str(10**9)
    assert (await findings(porten))["ram_budget_mb"]["verdict"] == "warning"


async def test_a_port_that_another_has_is_found_and_our_own_is_not(porten: Any) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        porten.settings["PORTEN_LOCAL_PORT"] = str(other.getsockname()[1])
        assert (await findings(porten))["local port"]["verdict"] == "failed"
    await porten.run("--local-only")
    assert (await findings(porten))["local port"]["verdict"] == "ok"


async def test_a_pause_is_named_with_and_without_a_node(porten: Any) -> None:
    await porten("pause")
    assert (await findings(porten))["work"]["remedy"] == "porten resume"
    await porten.run("--local-only")
    found = (await findings(porten))["work"]
    assert (found["found"], found["remedy"]) == ("paused by its owner", "porten resume")


async def test_secrets_and_keys_that_others_can_read_are_found(porten: Any) -> None:
    file = porten.home / "porten" / "node.toml"
    file.parent.mkdir()
    file.write_text('join_token = "hunter2"\nhub_url = "https://hub.example.org"\n')
    file.chmod(0o644)
    (porten.home / "data").mkdir(mode=0o755)
    (porten.home / "data").chmod(0o755)
    found = await findings(porten)
    assert found["settings"]["remedy"] == f"chmod 600 {file}"
    assert found["data_dir"]["remedy"].startswith("chmod 700")
    assert "hunter2" not in str(found)
    file.chmod(0o600)
    assert (await findings(porten))["settings"]["verdict"] == "ok"


@pytest.mark.parametrize(
    ("body", "verdict", "said"),
    [
        (b'{"data": [{"id": "theirs"}]}', "ok", "serves smollm2-135m-instruct"),
        (b'{"data": [{"id": "other"}]}', "failed", "does not have the model"),
        (b"<html>", "failed", "lists no models"),
    ],
)
async def test_an_endpoint_of_the_owners_is_looked_at(
    porten: Any, engine: Any, body: bytes, verdict: str, said: str
) -> None:
    async def script(request: Any, connection: Any) -> None:
        await connection.answer(200, body)

    engine.script = script
    own = {"url": f"http://127.0.0.1:{engine.port}", "models": {"smollm2-135m-instruct": "theirs"}}
    porten.settings["PORTEN_ENDPOINTS"] = json.dumps({"own": own})
    found = await findings(porten, code=0 if verdict == "ok" else 1)
    assert found["endpoint own"]["verdict"] == verdict
    assert said in found["endpoint own"]["found"]
    assert bool(found["endpoint own"]["remedy"]) == (verdict != "ok")
    assert found["engine llama_cpp"]["verdict"] == "ok", "with an endpoint no engine is needed"


async def test_an_endpoint_that_is_spoken_to_in_the_clear_on_another_machine_is_named(
    porten: Any, engine: Any
) -> None:
    async def script(request: Any, connection: Any) -> None:
        await connection.answer(200, b'{"data": [{"id": "theirs"}]}')

    engine.script = script
    # An address that is not loopback's, and leads here all the same.
    own = {
        "url": f"http://0.0.0.0:{engine.port}",
        "models": {"smollm2-135m-instruct": "theirs"},
        "own_machine_in_region": True,
    }
    porten.settings["PORTEN_ENDPOINTS"] = json.dumps({"own": own})
    found = (await findings(porten, code=0))["endpoint own"]
    assert found["verdict"] == "warning"
    assert "unencrypted" in found["found"]
    assert "https" in found["remedy"]
