"""The tunnel's benchmark on its real processes: a Hub, a node's relay, the scripted engine, many nodes."""

import asyncio
import io
import json
from collections.abc import AsyncIterator
from pathlib import Path

import psutil
import pytest
from rich.console import Console
from typer.testing import CliRunner

from benchmarks.cli import app
from benchmarks.command.progress import Progress
from benchmarks.generator.client import Client
from benchmarks.generator.target import Target
from benchmarks.generator.workloads import Fixed, Workload
from benchmarks.machine.processes import ProcessFailed
from benchmarks.reports.result import read
from benchmarks.stacks.schedules import model_name
from benchmarks.tunnel.bare import BareTunnels
from benchmarks.tunnel.measuring import Part, TunnelPlan, run_tunnel
from benchmarks.tunnel.relay import StreamLoad
from benchmarks.tunnel.server import Carry
from benchmarks.tunnel.stack import python_process

WORKLOAD = Workload(Fixed(8), Fixed(6))


@pytest.fixture
def progress() -> Progress:
    return Progress(Console(file=io.StringIO()), quiet=True)


@pytest.fixture
async def engine(tmp_path: Path) -> AsyncIterator[str]:
    async with python_process("engine", "benchmarks.stacks.scripted_engine", directory=tmp_path) as process:
        at = (await process.wait_for_line(r"listening engine=(\S+)"))[1]
        yield f"http://{at}/v1"
        assert await process.stop() == 0


async def test_the_scripted_engine_answers_as_one_does(engine: str) -> None:
    async with Client(Target(engine, model_name(2))) as client:
        samples = await asyncio.gather(*(client.send(WORKLOAD.request(index)) for index in range(20)))
        again = await client.send(WORKLOAD.request(20))
    for sample in (*samples, again):
        assert (sample.error, sample.output_tokens, sample.counted) == (None, 6, True)
        assert len(sample.delays) == 6
        assert 0 <= min(sample.delays) <= max(sample.delays) < 10  # one clock for both processes


async def test_the_scripted_engine_answers_whole_where_no_stream_is_asked_for(engine: str) -> None:
    async with Client(Target(engine, model_name(2), stream=False)) as client:
        sample = await client.send(WORKLOAD.request(0))
    assert (sample.error, sample.output_tokens, sample.counted, sample.gaps) == (None, 6, True, ())


async def test_the_scripted_engine_knows_no_other_model(engine: str) -> None:
    async with Client(Target(engine, "smollm2")) as client:
        assert (await client.send(WORKLOAD.request(0))).error == "http_404"


async def test_the_scripted_engine_waits_for_a_reader_that_is_slow(engine: str) -> None:
    count, body = 20_000, b""
    host, port = engine.removeprefix("http://").removesuffix("/v1").split(":")
    reader, writer = await asyncio.open_connection(host, int(port), limit=4096)
    asked = json.dumps({"model": model_name(1), "max_tokens": 50, "stream": True}).encode()
    writer.write(b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n%b" % (len(asked), asked))
    while b"\r\n0\r\n\r\n" not in body and len(body) < count:
        body += await reader.read(512)
    assert body.count(b'"sent_at"') == 50
    writer.close()
    await writer.wait_closed()


async def test_streams_through_hub_and_node_against_the_engine(progress: Progress) -> None:
    plan = TunnelPlan(
        parts=frozenset({Part.RELAY, Part.LATENCY}),
        rounds=2,
        relay=(StreamLoad(8, 2, chunks=40),),
        latency=(StreamLoad(1, 2, chunks=2, answers=3),),
    )
    result = await run_tunnel(plan, stop=asyncio.Event(), progress=progress)
    for level, streams in ((result.relay[0], 8), (result.latency[0], 1)):
        assert (level.load.streams, level.rounds, level.spoiled_rounds, level.errors) == (streams, 2, 0, {})
        assert set(level.cpu_per_100k_s) == {"engine", "hub", "node"}
        assert level.via_delay is not None
        assert level.direct_delay is not None
        assert (
            level.via_delay.count
            == level.direct_delay.count
            == 2 * level.load.streams * (level.load.chunks * level.load.answers)
        )
        assert level.via_delay.minimum > 0
        assert level.via_delay.p50 > level.direct_delay.p50  # the longer way takes longer
    assert not result.interrupted


async def test_many_tunnels_come_back_and_none_is_lost(tmp_path: Path, progress: Progress) -> None:
    bare = BareTunnels(tmp_path, progress)
    few, many = await bare.idle((10, 40))
    assert (few.count, many.count) == (10, 40)
    assert many.memory > many.before == few.before
    assert 4 * 1024 < many.each < 256 * 1024
    (storm,) = await bare.storms(25, (500.0,))
    assert (storm.nodes, storm.lost) == (25, {})
    assert storm.standing[-1] == (storm.seconds, 25)
    assert all(0 <= seconds < storm.seconds + 0.001 for seconds, _ in storm.standing)
    assert storm.before < storm.peak_memory < 2 * storm.before  # this process's, not its parent's
    assert storm.seconds > 0


async def test_a_process_that_cannot_start_is_told(tmp_path: Path, progress: Progress) -> None:
    bare = BareTunnels(tmp_path, progress)
    (tmp_path / "tunnel-key").write_bytes(b"short")
    with pytest.raises(ProcessFailed, match="hub end ended"):
        await bare.carry(Carry(seconds=0.1))


async def test_a_node_that_ends_by_itself_is_told_and_not_waited_for(
    tmp_path: Path, progress: Progress
) -> None:
    class KillsTheNodes(Progress):
        def phase(self, label: str, limit: object) -> None:
            if label.startswith("Storm"):
                (nodes,) = (
                    child
                    for child in psutil.Process().children()
                    if "benchmarks.tunnel.nodes" in child.cmdline()
                )
                nodes.kill()

    with pytest.raises(ProcessFailed, match="nodes ended"):
        await BareTunnels(tmp_path, KillsTheNodes(Console(), quiet=True)).storms(3, (50.0,))


async def test_stopping_keeps_what_was_complete(progress: Progress) -> None:
    stop = asyncio.Event()

    class StopsAtTheSessions(Progress):
        def phase(self, label: str, limit: object) -> None:
            if label.startswith("Idle"):
                stop.set()

    plan = TunnelPlan(parts=frozenset({Part.CHUNKS, Part.SESSIONS}), carry=Carry(seconds=0.1), idle=(10_000,))
    result = await run_tunnel(plan, stop=stop, progress=StopsAtTheSessions(Console(), quiet=True))
    assert result.interrupted
    assert result.carried is not None
    assert [each.ways for each in result.carried.chunks] == [1, 2]
    assert result.carried.bodies is None
    assert result.idle == []


def test_the_command_shows_and_writes(tmp_path: Path) -> None:
    file = tmp_path / "tunnel.json"
    arguments = ["tunnel", "--quick", "--only", "chunks", "--only", "body", "--json", str(file)]
    result = CliRunner().invoke(app, arguments, env={"COLUMNS": "160"})
    assert result.exit_code == 0, result.output
    for text in ("chunks, one way", "chunks, both ways", "8 MiB to the node", "8 MiB from the node"):
        assert text in result.output
    written = read(file)
    assert written.made.quick
    figures = {figure.key: figure for _, figure in written.figures()}
    for way in ("one_way", "both_ways"):
        assert figures[f"chunks/{way}_per_s"].value > 100
        assert 0 < figures[f"chunks/{way}_hub_cpu_s_per_100k"].value < 1000
        assert 0 < figures[f"chunks/{way}_node_cpu_s_per_100k"].value < 1000
    assert len(figures["body/to_node_mb_per_s"].values) == 5
    assert {key.partition("/")[0] for key in figures} == {"chunks", "body"}


def test_a_part_that_does_not_exist_is_a_usage_error() -> None:
    assert CliRunner().invoke(app, ["tunnel", "--only", "everything"]).exit_code == 2
