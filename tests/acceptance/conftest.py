"""A whole Porten of real processes, shared by a module's tests, and clients for it."""

from collections.abc import AsyncIterator, Callable
from pathlib import Path

import httpx
import openai
import pytest
import pytest_asyncio

from benchmarks.stacks.stack import SharedData, Stack, run_stack


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Everything here needs the real engine; starting a stack takes a while on a small machine."""
    for item in items:
        if "acceptance" in item.path.parts:
            item.add_marker(pytest.mark.engine)
            item.add_marker(pytest.mark.timeout(240))


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stack(tmp_path_factory: pytest.TempPathFactory, shared_data: Path) -> AsyncIterator[Stack]:
    """A running Hub and node; a test that kills part of it puts it back."""
    async with run_stack(tmp_path_factory.mktemp("stack"), SharedData(shared_data)) as running:
        yield running


@pytest_asyncio.fixture(loop_scope="module")
async def client(stack: Stack) -> AsyncIterator[openai.AsyncOpenAI]:
    """The official client, unmodified, as an app developer would set it up."""
    async with openai.AsyncOpenAI(
        base_url=stack.base_url, api_key=stack.api_key, max_retries=0, timeout=120
    ) as official:
        yield official


@pytest_asyncio.fixture(loop_scope="module")
async def http(stack: Stack) -> AsyncIterator[httpx.AsyncClient]:
    """A plain HTTP client with the key, for what the official client cannot send."""
    async with httpx.AsyncClient(
        base_url=stack.base_url,
        headers={"Authorization": f"Bearer {stack.api_key}"},
        timeout=120,
        trust_env=False,
    ) as plain:
        yield plain


@pytest.fixture
def with_key(stack: Stack) -> Callable[[str], openai.AsyncOpenAI]:
    """Return a factory of official clients with another key."""

    def make(key: str) -> openai.AsyncOpenAI:
        return openai.AsyncOpenAI(base_url=stack.base_url, api_key=key, max_retries=0, timeout=60)

    return make
