"""What the OpenAPI document says is so: schemathesis asks a real Hub everything that follows from it."""

import asyncio
import os
import re
import sys
from pathlib import Path

import pytest

from hub.api.admin.errors import ADMIN_ERRORS
from hub.storage.records import Role

HERE = Path(__file__).parent
LONG_S = int(os.environ.get("PORTEN_HOSTILE_S", "240"))


async def schemathesis(bench, *options):
    """Run it against the Hub; its exit code and what it said."""
    home = await bench.organisation("Porten")
    issued = await bench.hub.admin_tokens.issue(None, home, name="s", role=Role.OPERATOR, lifetime_s=9999)
    command = [
        *(sys.executable, "-m", "schemathesis.cli", "--config-file", str(HERE / "schemathesis.toml")),
        *("run", f"{bench.url}/admin/v1/openapi.json", "--url", bench.url, "--checks", "all"),
        *("--suppress-health-check", "all", "--warnings", "off", "--no-color", *options),
    ]
    environ = os.environ | {
        "SCHEMATHESIS_HOOKS": "tests.integration.hub.api.schema.hooks",
        "PORTEN_TEST_TOKEN": issued.secret,
        "PORTEN_TEST_TOKEN_ID": issued.token.id,
        "NO_PROXY": "127.0.0.1",
    }
    process = await asyncio.create_subprocess_exec(
        *command,
        env=environ,
        cwd=HERE.parents[4],
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        said, _ = await process.communicate()
    except asyncio.CancelledError:
        process.kill()
        await process.wait()
        raise
    return process.returncode, said.decode()


def operations(said):
    """How many operations there are, and how many were tried."""
    selected, tried = re.search(r"Selected: (\d+)/\d+\s+Tested: (\d+)", said).groups()
    return int(selected), int(tried)


@pytest.mark.timeout(300)
async def test_the_hub_keeps_to_its_document(bench, http):
    code, said = await schemathesis(bench, "--max-examples", "3", "--seed", "1")
    assert code == 0, said
    document = (await http.get("/admin/v1/openapi.json")).json()
    count = sum(len(each) for each in document["paths"].values())
    assert operations(said) == (count, count)


async def test_a_fault_is_found(bench, monkeypatch):
    """Else the test above would say nothing."""

    async def broken(*_args, **_named):
        raise ValueError

    monkeypatch.setattr(bench.hub.storage.keys, "page", broken)
    only = ("--include-path", "/admin/v1/keys", "--phases", "coverage", "--max-failures", "1")
    code, said = await schemathesis(bench, *only)
    assert code == 1
    assert "Server error" in said


@pytest.mark.hostile
@pytest.mark.timeout(LONG_S * 3 + 120)
async def test_the_hub_keeps_to_its_document_for_long(bench):
    code, said = await schemathesis(bench, "--max-time", str(LONG_S))
    assert code == 0, said


async def test_every_code_stands_in_the_document_where_it_can_come(http):
    document = (await http.get("/admin/v1/openapi.json")).json()
    shown = {
        code
        for response in document["components"]["responses"].values()
        for code in response["content"]["application/json"]["examples"]
    }
    assert shown == set(ADMIN_ERRORS) - {"unknown_url", "method_not_allowed"}
    schemes = document["components"]["securitySchemes"]
    for path, methods in document["paths"].items():
        for operation in methods.values():
            named = [name for each in operation["security"] for name in each]
            assert path.startswith("/enroll/") or named == ["adminToken"]
            assert set(named) <= set(schemes)
