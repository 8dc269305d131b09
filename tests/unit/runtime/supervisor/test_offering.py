"""What a node offers: what its engines speak, what it has and can hold, and nothing without an engine."""

from pathlib import Path

import pytest

from models.fit import MIB
from runtime.backends.base import Availability
from runtime.errors import ModelDoesNotFit, ModelUnknown
from tests.unit.runtime.supervisor.running_node import hold, lease, running


@pytest.fixture
def watched(monkeypatch: pytest.MonkeyPatch) -> None:
    """The disk is looked at all the time."""
    monkeypatch.setattr("runtime.supervisor._WATCH_EVERY_S", 0.01)


MISSING = Availability(ok=False, reason="no engine", remedy="install it")


@pytest.mark.usefixtures("watched")
async def test_without_an_engine_nothing_is_offered_and_the_reason_is_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with running(tmp_path) as node:
        await node.supervisor.pull("one")
        await node.until(lambda: node.model().fits)
        node.backend.state = MISSING
        await node.until(lambda: not node.supervisor.snapshot().accepting)
        assert node.supervisor.snapshot().reason == "no engine (install it)"
        assert not node.model().fits
        warned = [record for record in caplog.records if record.levelname == "WARNING"]
        assert [record.reason for record in warned] == ["no engine"]
        node.backend.state = Availability(ok=True)
        await node.until(lambda: node.supervisor.snapshot().accepting)
        assert node.model().fits


@pytest.mark.usefixtures("watched")
async def test_what_is_loaded_stays_offered_while_its_engine_is_being_replaced(tmp_path: Path) -> None:
    async with running(tmp_path) as node, lease(node):
        await node.supervisor.pull("two")
        await node.until(lambda: node.model("two").fits)
        node.backend.state = MISSING
        await node.until(lambda: not node.model("two").fits)
        assert node.model().fits
        assert node.supervisor.snapshot().accepting


async def test_what_it_does_not_have_or_cannot_hold(tmp_path: Path) -> None:
    async with running(tmp_path, ram_budget_bytes=10 * MIB, offered=("one",)) as node:
        with pytest.raises(ModelUnknown):
            await hold(node, "two")
        with pytest.raises(ModelDoesNotFit):
            await hold(node)
        assert not node.model().fits
        assert [model.model for model in node.supervisor.snapshot().models] == ["one"]
        assert node.supervisor.capabilities("one") == {"chat", "completions", "responses"}
        assert node.supervisor.capabilities("two") is node.supervisor.capabilities("three") is None


@pytest.mark.usefixtures("watched")
async def test_what_an_engine_speaks_is_offered_while_it_is_here(tmp_path: Path) -> None:
    async with running(tmp_path) as node:
        await node.supervisor.pull("two")
        async with lease(node) as held:
            assert held.endpoint.protocols == {"responses"}
            assert "responses" in node.model("two").capabilities
            node.backend.state = MISSING
            await node.until(lambda: "responses" not in node.model("two").capabilities)
            assert "responses" in node.model().capabilities, "it is loaded"
