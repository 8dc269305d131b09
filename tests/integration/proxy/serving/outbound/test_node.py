"""The real `porten` with `proxy_url`: all speech with the Hub takes it, nothing shows its password."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from benchmarks.stacks.stack import NodeProcess, SharedData

NOBODY = "http://127.0.0.1:1"


@pytest.fixture
async def node(site: Any, gateway: Any, tmp_path: Path) -> AsyncIterator[NodeProcess]:
    settings = {
        "PORTEN_HUB_CA_FILE": str(site.authority.file),
        "PORTEN_PROXY_URL": gateway.url,
        "PORTEN_LOG_LEVEL": "DEBUG",
        "HTTPS_PROXY": NOBODY,
        "ALL_PROXY": NOBODY,
        "HOME": str(tmp_path),
        "XDG_CONFIG_HOME": str(tmp_path),
    }
    process = NodeProcess(tmp_path, SharedData(tmp_path / "shared"), site.front.url, settings=settings)
    yield process
    await process.stop()


@pytest.mark.parametrize("make_front", ["nginx"], indirect=True)
async def test_a_node_lives_behind_it(site: Any, gateway: Any, node: NodeProcess, until: Any) -> None:
    said = await node.cli("login", "--join-token", await site.join_token())
    assert "Enrolled as" in said
    opened = [len(gateway.opened)]
    await node.start()
    opened.append(len(gateway.opened))
    await until(site.hub.registry.snapshot, "the Hub has the node")
    [here] = site.hub.registry.snapshot()
    assert "(set)" in next(
        line for line in (await node.cli("config", "show")).splitlines() if "proxy" in line
    )
    await node.cli("logout")
    opened.append(len(gateway.opened))
    await until(lambda: site.here(here) is None, "it is let go")
    assert opened[:2] == [1, 3], "one for the login, one for the Hub's addresses and one tunnel"
    assert opened[2] > 3, "one to leave, and perhaps the tunnel's once more"
    assert await node.process.wait() == 0
    told = node.log.read_text()
    for secret in ("p@ss:w/rd", "p%40ss", gateway.url):
        assert secret not in told
