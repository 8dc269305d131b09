"""`porten-bench overhead` with everything started: real engine, node, Hub and peers, each a process."""

import asyncio
import os
import socket
from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import urlsplit

import psutil
import pytest
from typer.testing import CliRunner

from benchmarks.cli import app
from benchmarks.generator.client import Client
from benchmarks.generator.workloads import Fixed, Workload
from benchmarks.machine.cpu import read_cpu
from benchmarks.machine.processes import ProcessFailed
from benchmarks.overhead.peers import Peer, peers_cache
from benchmarks.overhead.recipes import LiteLLM, Nginx, SshReverse
from benchmarks.overhead.sides import EngineAtWork, scripted_engine
from benchmarks.reports.result import read


@pytest.fixture
async def engine(tmp_path: Path) -> AsyncIterator[EngineAtWork]:
    place = tmp_path / "engine"
    place.mkdir()
    async with scripted_engine(place) as running:
        yield running


@pytest.fixture
def place(tmp_path: Path) -> Path:
    made = tmp_path / "peer"
    made.mkdir()
    return made


async def answers(peer: Peer, engine: EngineAtWork, place: Path) -> None:
    """It passes on streams as they come and whole answers, tells its processes, and is gone afterwards."""
    chunks = 20
    async with peer.running(engine.target, place) as side:
        assert side.name == peer.name
        async with Client(side.target) as client:
            samples = [
                await client.send(Workload(Fixed(8), Fixed(chunks)).request(number)) for number in range(3)
            ]
        assert [sample.error for sample in samples] == [None] * 3
        for sample in samples:
            # 5 ms lie between two chunks of the engine: held back, they would come together.
            assert len(sample.gaps) == chunks - 1
            assert sum(gap > 0.001 for gap in sample.gaps) > chunks / 2
        assert set(read_cpu(side.trees)) == {tree.name for tree in side.trees}
        processes = [psutil.Process(tree.pid) for tree in side.trees]
        port = urlsplit(side.target.base_url).port
    assert not any(process.is_running() for process in processes)
    with socket.socket() as free:
        assert free.connect_ex(("127.0.0.1", port)) != 0


@pytest.mark.proxy
async def test_nginx_stands_before_an_engine(nginx: str, engine: EngineAtWork, place: Path) -> None:
    assert Nginx().missing() is None
    await answers(Nginx(), engine, place)


@pytest.mark.proxy
async def test_a_port_opened_by_ssh_leads_to_an_engine(engine: EngineAtWork, place: Path) -> None:
    if why := SshReverse().missing():
        pytest.skip(why)
    await answers(SshReverse(), engine, place)
    for name in ("host-key", "user-key"):
        assert (place / name).stat().st_mode & 0o077 == 0


@pytest.mark.outside
async def test_litellm_stands_before_an_engine(engine: EngineAtWork, place: Path) -> None:
    peer = LiteLLM(peers_cache() / "litellm")
    if why := peer.missing():
        pytest.skip(why)
    async with peer.running(engine.target, place) as side, Client(side.target) as client:
        while (sample := await client.send(Workload(Fixed(8), Fixed(5)).request(0))).error:
            assert sample.error == "connection_refused", sample.detail
            await asyncio.sleep(0.1)  # its server says nothing when it has begun
        assert sample.output_tokens == 5


@pytest.mark.proxy
@pytest.mark.timeout(240)
def test_everything_is_started_measured_and_ended(nginx: str, tmp_path: Path) -> None:
    file = tmp_path / "result.json"
    before = {process.pid for process in psutil.Process().children(recursive=True)}
    result = CliRunner().invoke(
        app,
        ["overhead", "--quick", "--rounds", "2", "--peers", "nginx,litellm", "--quiet", "--json", str(file)],
        env={"COLUMNS": "200", "XDG_CACHE_HOME": str(tmp_path)},
    )
    assert result.exit_code == 0, result.output
    written = read(file)
    told = {figure.key: figure for _, figure in written.figures()}
    sides = ("node", "hub", "nginx")
    for load in ("requests", "one_by_one", "streams"):
        for side in sides:
            assert len(told[f"{load}/{side}/throughput_ratio"].values) == 2
            assert told[f"{load}/{side}/cpu_ratio"].value > 0
    assert "requests/hub/added_ttft_ms" not in told  # nothing of it is streamed
    for key in ("engine/engine", "node/node", "hub/hub", "hub/node", "nginx/nginx"):
        assert f"requests/{key}_cpu_s_per_1000_requests" in told
        assert f"streams/{key}_cpu_s_per_100k_chunks" in told
    levels = {level["load"]: level for level in written.details["levels"]}
    assert all(levels["streams"][side]["output_tokens"] == 2 * 16 * 40 for side in ("engine", *sides))
    assert not any(level[side]["failed"] for level in levels.values() for side in ("engine", *sides))
    # The one that is not here is named, with the remedy.
    (absent,) = (remark for remark in written.remarks if remark.code == "peer_absent")
    assert absent.text.startswith("litellm is left out")
    assert "--install-peers" in result.output
    assert {process.pid for process in psutil.Process().children(recursive=True)} <= before


async def test_a_peer_that_does_not_start_ends_it_with_its_last_words(
    engine: EngineAtWork, place: Path
) -> None:
    broken = place / "bin" / "litellm"
    broken.parent.mkdir()
    broken.write_text("#!/bin/sh\necho 'the sky is falling' >&2\nexit 3\n")
    broken.chmod(0o755)
    with pytest.raises(ProcessFailed, match="the sky is falling"):
        async with LiteLLM(place).running(engine.target, place):
            pass


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--direct", "http://localhost:1"], "give --direct, --via and --model"),
        (["--direct", "http://x", "--via", "http://y", "--model", "m", "--quick"], "without URLs"),
        (["--cpu-pid", f"hub={os.getpid()}"], "belong to --direct and --via"),
        (["--model", "m"], "has no model"),
        (["--peers", "squid"], "not 'squid'"),
    ],
)
def test_options_of_two_forms_are_not_mixed(arguments: list[str], said: str) -> None:
    result = CliRunner().invoke(app, ["overhead", *arguments], env={"COLUMNS": "200"})
    assert result.exit_code == 2
    assert said in result.output
