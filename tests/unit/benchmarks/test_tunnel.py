"""The tunnel's figures from made-up runs, and the result they are told in."""

import io
import logging
from dataclasses import replace

import pytest
from rich.console import Console

from benchmarks.command.progress import Progress
from benchmarks.generator.client import Sample
from benchmarks.generator.driving import Run
from benchmarks.generator.loads import Limit
from benchmarks.overhead.turns import Round, Turn
from benchmarks.reports.result import Made, Result
from benchmarks.tunnel import report as tunnel_report
from benchmarks.tunnel.bare import IdleSessions, Storm
from benchmarks.tunnel.measuring import Part, TunnelPlan, TunnelResult
from benchmarks.tunnel.nodes import DialCounter
from benchmarks.tunnel.relay import StreamLoad, reduce_relay_rounds
from benchmarks.tunnel.server import BodiesCarried, Carried, ChunksCarried

LOAD = StreamLoad(2, 20, chunks=4)


def run(
    delays: tuple[float, ...], *, ttft: float = 0.1, seconds: float = 2.0, error: str | None = None
) -> Run:
    sample = Sample(0.0, 0.0, seconds, ttft, seconds, delays=delays, error=error)
    return Run(0.0, seconds, [sample])


def turn(added: float, cpu_s: float = 0.0) -> Round:
    direct = run((0.001, 0.002, 0.003))
    via = run((0.001 + added, 0.002 + added, 0.003 + added), ttft=0.1 + added)
    return Turn(direct, {}, 0.1), Turn(via, {"hub": cpu_s}, 0.1)


def with_via(turns: Round, failed: Run) -> Round:
    return turns[0], replace(turns[1], run=failed)


def test_what_is_added_is_the_median_of_the_rounds() -> None:
    level = reduce_relay_rounds(LOAD, [turn(0.01), turn(0.02), turn(9.0)], seed=0)
    for added in (level.added_delay_p50_s, level.added_delay_p99_s, level.added_ttft_p50_s):
        assert added is not None
        assert added.median == pytest.approx(0.02)
    assert level.chunks_per_s is not None
    assert level.chunks_per_s.median == 1.5


def test_cpu_time_is_told_for_100k_chunks() -> None:
    level = reduce_relay_rounds(LOAD, [turn(0.0, cpu_s=0.3)], seed=0)
    assert level.cpu_per_100k_s["hub"].median == pytest.approx(10_000)


def test_a_round_with_a_failure_is_left_out_and_told() -> None:
    spoiled = with_via(turn(5.0), run((0.5,), error="truncated"))
    level = reduce_relay_rounds(LOAD, [turn(0.01), spoiled], seed=0)
    assert (level.rounds, level.spoiled_rounds, level.errors) == (2, 1, {"truncated": 1})
    assert level.added_delay_p50_s is not None
    assert level.added_delay_p50_s.median == pytest.approx(0.01)


def test_nothing_but_failures_gives_no_figures() -> None:
    spoiled = with_via(turn(0.0), run((), error="timeout"))
    level = reduce_relay_rounds(LOAD, [spoiled], seed=0)
    assert (level.chunks_per_s, level.added_ttft_p50_s, level.cpu_per_100k_s) == (None, None, {})


def test_a_sessions_memory_is_what_it_added() -> None:
    assert IdleSessions(count=100, before=5_000_000, memory=8_000_000).each == 30_000


def whole_result() -> TunnelResult:
    level = reduce_relay_rounds(LOAD, [turn(0.01, cpu_s=0.3)], seed=0)
    storm = Storm(
        nodes=50,
        handshakes_per_s=10.0,
        seconds=5.5,
        before=60 * 1024 * 1024,
        peak_memory=80 * 1024 * 1024,
        hub_cpu_s=1.25,
        refused=7,
        nobody_there=60,
        lost={"TimeoutError": 2},
        standing=((2.0, 10), (5.5, 50)),
    )
    chunks = ChunksCarried(1, 100_000, 2.0, 0.25, 0.5)
    return TunnelResult(
        TunnelPlan(rounds=1, seed=7),
        relay=[level],
        latency=[level],
        carried=Carried((chunks,), BodiesCarried((0.016, 0.032), (0.064,))),
        idle=[IdleSessions(100, 5_000_000, 8_000_000)],
        storms=[storm],
    )


def reported(found: TunnelResult) -> Result:
    return tunnel_report.report(found, Made(at="", command=[], environment={}))


def test_the_result_holds_every_part() -> None:
    found = reported(whole_result())
    told = {figure.key: figure.value for _, figure in found.figures()}
    assert told["relay/2x20ms/added_chunk_p99_ms"] == pytest.approx(10.0)
    assert told["relay/2x20ms/hub_cpu_s_per_100k"] == pytest.approx(10_000)
    assert told["latency/2x20ms/added_ttft_p50_ms"] == pytest.approx(10.0)
    assert told["chunks/one_way_per_s"] == 50_000
    assert (told["chunks/one_way_hub_cpu_s_per_100k"], told["chunks/one_way_node_cpu_s_per_100k"]) == (
        0.25,
        0.5,
    )
    assert told["body/from_node_mb_per_s"] == pytest.approx(8 * 1024 * 1024 / 0.064 / 1e6)
    assert told["sessions/100/kib_each"] == pytest.approx(30_000 / 1024)
    assert told["storm/50@10/all_back_s"] == 5.5
    assert told["storm/50@10/lost"] == 2
    assert any("2 TimeoutError" in figure.name for _, figure in found.figures())
    assert len(told) == len(list(found.figures()))


def test_every_part_is_drawn() -> None:
    plots = {plot.key: plot for plot in reported(whole_result()).plots}
    assert set(plots) == {
        "relay/chunks_per_s",
        "relay/cpu_s_per_100k",
        "relay/added_chunk_ms",
        "latency/added_ttft_ms",
        "sessions/kib_each",
        "storm/standing",
    }
    assert plots["relay/chunks_per_s"].x.labels == ["2 x 20 ms"]
    assert [line.name for line in plots["relay/added_chunk_ms"].lines] == ["p50", "p99"]
    assert [line.y for line in plots["relay/added_chunk_ms"].lines] == [[pytest.approx(10.0)]] * 2
    (storm,) = plots["storm/standing"].lines
    assert (storm.name, storm.x, storm.y) == ("10 let in a second", [0.0, 2.0, 5.5], [0.0, 10.0, 50.0])


def test_what_was_not_measured_is_not_told() -> None:
    found = reported(TunnelResult(TunnelPlan()))
    assert (found.groups, found.plots) == ([], [])


def test_quick_is_smaller_in_everything() -> None:
    whole, quick = TunnelPlan(), TunnelPlan.quick(frozenset({Part.STORM}), seed=3)
    assert (quick.parts, quick.seed) == ({Part.STORM}, 3)
    assert (quick.rounds, quick.storm, quick.idle[-1]) < (whole.rounds, whole.storm, whole.idle[-1])


def test_dials_are_counted_by_what_became_of_them() -> None:
    counter = DialCounter()
    for fields in (
        {"event": "dial_refused", "status": 503},
        {"event": "dial_failed", "error": "ConnectionRefusedError: nobody there"},
        {"event": "dial_failed", "error": "TimeoutError: "},
        {"event": "dial_failed", "error": "TimeoutError: "},
        {"event": "session_closed"},
    ):
        counter.handle(logging.makeLogRecord(fields))
    assert counter.dials.refused == 1
    assert counter.dials.unanswered == {"ConnectionRefusedError": 1, "TimeoutError": 2}


def test_progress_counts_what_a_phase_counts() -> None:
    progress = Progress(Console(file=io.StringIO()), quiet=True)
    progress.phase("nodes", Limit(requests=40))
    progress.reached(10, 40, "nodes")
    assert (progress.fraction(), progress.text()) == (0.25, "25%, 10 of 40 nodes")
    progress.phase("requests", Limit(requests=4))
    assert progress.fraction() == 0.0
    progress.phase("Idle", Limit(seconds=3600))
    assert progress.text() == "0%, 0 of 3600 s"


def test_progress_says_nothing_of_what_cannot_be_counted() -> None:
    progress = Progress(Console(file=io.StringIO()), quiet=True)
    for limit in (Limit(), Limit(requests=1)):
        progress.phase("Starting", limit)
        assert progress.text() == ""
    progress.reached(1, 8, "simulations; now porten")
    assert progress.text() == "12%, 1 of 8 simulations; now porten"
