"""What a node takes from its Hub as another version of itself, over real HTTP."""

from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from runtime.config import NodeConfig
from runtime.errors import UpgradeRefused
from runtime.handed_out import fetch_newer, newest
from runtime.membership import join


@pytest.fixture
async def node(hub: Any, tmp_path: Path) -> NodeConfig:
    """A node of the scripted Hub."""
    config = NodeConfig(data_dir=tmp_path / "data", hub_url=hub.url)
    await join(config, "pjt_good")
    return config


async def test_a_newer_one_is_fetched(hub: Any, node: NodeConfig, tmp_path: Path) -> None:
    hub.hand_out("2.10.0", b"a wheel")
    assert (await newest(node)).version == "2.10.0"
    found = await fetch_newer(node, "2.9.1", tmp_path)
    assert found == tmp_path / "porten-2.10.0-py3-none-any.whl"
    assert found.read_bytes() == b"a wheel"


async def test_the_same_is_not(hub: Any, node: NodeConfig, tmp_path: Path) -> None:
    hub.hand_out("2.10.0", b"a wheel")
    assert await fetch_newer(node, "2.10.0", tmp_path) is None
    assert not list(tmp_path.glob("*.whl"))


async def test_an_older_one_is_refused(hub: Any, node: NodeConfig, tmp_path: Path) -> None:
    """Also a word that was the Hub's once, and is said again by somebody in between."""
    hub.hand_out("2.9.0", b"a wheel")
    with pytest.raises(UpgradeRefused, match=r"hands out 2\.9\.0, and 2\.10\.0 is installed"):
        await fetch_newer(node, "2.10.0", tmp_path)


async def test_what_the_pinned_key_did_not_sign_is_refused(
    hub: Any, node: NodeConfig, tmp_path: Path
) -> None:
    hub.sign_with = Ed25519PrivateKey.generate()
    hub.hand_out("3.0.0", b"somebody else's")
    with pytest.raises(UpgradeRefused, match="not signed by this node's Hub"):
        await fetch_newer(node, "2.0.0", tmp_path)


async def test_another_file_than_the_signed_one_is_not_kept(
    hub: Any, node: NodeConfig, tmp_path: Path
) -> None:
    hub.hand_out("3.0.0", b"a wheel")
    hub.wheel = b"another"
    with pytest.raises(UpgradeRefused, match="another file"):
        await fetch_newer(node, "2.0.0", tmp_path)
    assert not list(tmp_path.glob("*.whl"))


async def test_a_hub_that_has_none_is_said_with_the_way_on(node: NodeConfig, tmp_path: Path) -> None:
    with pytest.raises(UpgradeRefused, match=r"too old to hand out a program; .*--to VERSION"):
        await fetch_newer(node, "2.0.0", tmp_path)


async def test_who_has_no_hub_is_told(tmp_path: Path) -> None:
    with pytest.raises(UpgradeRefused, match=r"porten login.*--to VERSION"):
        await newest(NodeConfig(data_dir=tmp_path))


async def test_a_version_that_is_none_is_refused(hub: Any, node: NodeConfig, tmp_path: Path) -> None:
    hub.hand_out("newest", b"a wheel")
    with pytest.raises(UpgradeRefused, match="nothing was changed"):
        await fetch_newer(node, "2.0.0", tmp_path)
