"""The real `porten` with its engine and nothing but `hub_ca_file` set, against a Hub behind the proxy."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import openai
import pytest

from benchmarks.machine.processes import ProcessFailed
from benchmarks.stacks.stack import NodeProcess, SharedData
from hub.policy import TrustClass

pytestmark = [
    pytest.mark.engine,
    pytest.mark.timeout(240),
    pytest.mark.parametrize("make_front", ["nginx"], indirect=True),
]


@pytest.fixture
async def node(site: Any, tmp_path: Path, shared_data: Path) -> AsyncIterator[NodeProcess]:
    settings = {"PORTEN_HUB_CA_FILE": str(site.authority.file)}
    process = NodeProcess(tmp_path, SharedData(shared_data), site.front.url, settings=settings)
    yield process
    await process.stop()


async def test_a_machine_is_approved_runs_and_answers(site: Any, node: NodeProcess) -> None:
    operator = await site.operator()
    async with node.login() as code:
        wish = {"name": "attic", "region": "eu-de", "trust": TrustClass.TRUSTED}
        await site.hub.enrollment.approve(code, operator, **wish)
    await node.start()
    assert "tunnel connected" in await node.cli("status")
    async with (
        site.client() as http,
        openai.AsyncOpenAI(
            base_url=f"{site.front.url}/v1", api_key=await site.key(), max_retries=0, http_client=http
        ) as app,
    ):
        stream = await app.chat.completions.create(
            model="smollm2-135m-instruct",
            messages=[{"role": "user", "content": "Count to ten."}],
            max_tokens=16,
            stream=True,
        )
        chunks = [chunk async for chunk in stream]
    assert chunks[-1].choices[0].finish_reason in ("length", "stop")
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
    assert await node.process.stop() == 0


async def test_an_authority_that_is_not_known_is_one_line(
    site: Any, node: NodeProcess, stranger: Path
) -> None:
    node.settings["PORTEN_HUB_CA_FILE"] = str(stranger)
    with pytest.raises(ProcessFailed) as caught:
        await node.cli("login", "--join-token", await site.join_token())
    [_, line] = str(caught.value).splitlines()
    assert line == (
        f"error: the certificate of {site.front.url} is not trusted: "
        "set hub_ca_file to your authority's PEM file"
    )
