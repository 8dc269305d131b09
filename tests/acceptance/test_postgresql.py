"""A whole Porten whose Hub keeps its data in PostgreSQL: everything is as it is with SQLite."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
import pytest_asyncio

from benchmarks.stacks.stack import MODEL, SharedData, Stack, run_stack
from tests.postgres import PostgresServer

pytestmark = pytest.mark.asyncio(loop_scope="module")
SHORT = {"model": MODEL, "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 2}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stack(
    tmp_path_factory: pytest.TempPathFactory, shared_data: Path, postgres: PostgresServer
) -> AsyncIterator[Stack]:
    """Made, served, enrolled and asked by the same commands and pages; only the URL is another."""
    settings = {"PORTEN_HUB_DATABASE_URL": postgres.create("acceptance"), "PORTEN_HUB_LOG_FORMAT": "json"}
    shared = SharedData(shared_data)
    async with run_stack(tmp_path_factory.mktemp("stack"), shared, hub_settings=settings) as running:
        yield running
    postgres.drop("acceptance")


async def test_a_killed_hub_loses_no_usage_and_goes_on(
    http: httpx.AsyncClient, stack: Stack, postgres: PostgresServer
) -> None:
    answered = set()
    for _ in range(5):
        answer = await http.post("/chat/completions", json=SHORT)
        assert answer.status_code == 200, answer.text
        answered.add(answer.headers["x-request-id"])
    said = stack.node.process.lines_so_far()
    await stack.hub.process.kill()
    await stack.hub.start()
    await stack.node.connected(after=said)
    answer = await http.post("/chat/completions", json=SHORT)
    assert answer.status_code == 200, answer.text
    answered.add(answer.headers["x-request-id"])
    wanted = "SELECT count(*) FROM usage_records WHERE completion_tokens = 2 AND outcome = 'ok'"
    async with asyncio.timeout(20):
        while int(postgres.sql(wanted, "acceptance")) < len(answered):
            await asyncio.sleep(0.1)
    rows = postgres.sql("SELECT request_id FROM usage_records", "acceptance").splitlines()
    assert sorted(rows) == sorted(answered)


async def test_what_is_revoked_by_a_command_is_refused_within_seconds(
    http: httpx.AsyncClient, stack: Stack, postgres: PostgresServer
) -> None:
    key = postgres.sql("SELECT id FROM api_keys", "acceptance")
    await stack.hub.cli("keys", "revoke", key)
    async with asyncio.timeout(10):
        while (await http.post("/chat/completions", json=SHORT)).status_code != 401:
            await asyncio.sleep(0.1)


async def test_the_databases_password_is_in_no_file_of_the_hubs(
    stack: Stack, postgres: PostgresServer
) -> None:
    files = [path for path in stack.directory.rglob("*") if path.is_file()]
    assert stack.hub.log in files
    assert [path for path in files if postgres.password.encode() in path.read_bytes()] == []
    assert not any(path.suffix == ".db" for path in files)
