"""The tunnel's result as people read it and as programs do (schema ``porten.bench.tunnel/1``).

Owns its tables and its document. In JSON, times are milliseconds unless their name says otherwise.
"""

from collections.abc import Mapping, Sequence
from typing import Final

from rich.console import Console
from rich.table import Table

from benchmarks import report
from benchmarks.statistics import Interval, Summary, median
from benchmarks.tunnel import TunnelResult
from benchmarks.tunnel_bare import IdleSessions, Storm
from benchmarks.tunnel_relay import RelayLevel, StreamLoad
from benchmarks.tunnel_server import BODY_BYTES, BodiesCarried, ChunksCarried

TUNNEL_SCHEMA: Final = "porten.bench.tunnel/1"
_KIB: Final = 1024
_MIB: Final = 1024 * 1024
_PER: Final = 100_000


def document(
    result: TunnelResult, *, command: Sequence[str], environment: Mapping[str, object]
) -> report.Document:
    """The result for a JSON file."""
    plan, carried = result.plan, result.carried
    return report.envelope(TUNNEL_SCHEMA, command, environment) | {
        "parts": sorted(plan.parts),
        "rounds": plan.rounds,
        "seed": plan.seed,
        "interrupted": result.interrupted,
        "relay": [_level(level) for level in result.relay],
        "latency": [_level(level) for level in result.latency],
        "chunks": [_chunks(each) for each in carried.chunks] if carried else [],
        "body": _bodies(carried.bodies) if carried and carried.bodies else None,
        "sessions": [_idle(each) for each in result.idle],
        "storms": [_storm(each) for each in result.storms],
    }


def _level(level: RelayLevel) -> report.Document:
    return {
        "load": _load(level.load),
        "rounds": level.rounds,
        "spoiled_rounds": level.spoiled_rounds,
        "chunks_per_s": report.interval_document(level.chunks_per_s),
        "direct_chunks_per_s": report.interval_document(level.direct_chunks_per_s),
        "cpu_s_per_100k_chunks": {
            name: report.interval_document(each) for name, each in level.cpu_per_100k_s.items()
        },
        "added_chunk_p50_ms": report.interval_document(level.added_delay_p50_s, scale=1000),
        "added_chunk_p99_ms": report.interval_document(level.added_delay_p99_s, scale=1000),
        "added_ttft_p50_ms": report.interval_document(level.added_ttft_p50_s, scale=1000),
        "direct": _latencies(level.direct_delay, level.direct_ttft),
        "via": _latencies(level.via_delay, level.via_ttft),
        "generator": report.generator_document(level.generator),
        "errors": level.errors,
    }


def _load(load: StreamLoad) -> report.Document:
    return {
        "streams": load.streams,
        "interval_ms": load.interval_ms,
        "chunks": load.chunks,
        "answers": load.answers,
    }


def _latencies(delay: Summary | None, ttft: Summary | None) -> report.Document:
    return {"chunk_ms": report.milliseconds(delay), "ttft_ms": report.milliseconds(ttft)}


def _chunks(carried: ChunksCarried) -> report.Document:
    return {
        "ways": carried.ways,
        "chunks_per_s": carried.chunks / carried.seconds,
        "hub_cpu_s_per_100k": carried.hub_cpu_s / carried.chunks * _PER,
        "node_cpu_s_per_100k": carried.node_cpu_s / carried.chunks * _PER,
    }


def _bodies(bodies: BodiesCarried) -> report.Document:
    return {
        "bytes": BODY_BYTES,
        "to_node_bytes_per_s": _rates(bodies.to_node_s),
        "from_node_bytes_per_s": _rates(bodies.from_node_s),
    }


def _rates(seconds: Sequence[float]) -> report.Document:
    rates = [BODY_BYTES / each for each in seconds]
    return {"median": median(rates), "low": min(rates), "high": max(rates), "bodies": len(rates)}


def _idle(idle: IdleSessions) -> report.Document:
    return {
        "sessions": idle.count,
        "bytes_each": idle.each,
        "process_bytes": idle.memory,
        "process_bytes_without": idle.before,
    }


def _storm(storm: Storm) -> report.Document:
    return {
        "nodes": storm.nodes,
        "handshakes_per_s": storm.handshakes_per_s,
        "all_connected_s": storm.seconds,
        "peak_process_bytes": storm.peak_memory,
        "process_bytes_without": storm.before,
        "hub_cpu_s": storm.hub_cpu_s,
        "dials_refused": storm.refused,
        "dials_while_nobody_listened": storm.nobody_there,
        "handshakes_lost": storm.lost,
    }


def show(console: Console, result: TunnelResult) -> None:
    """Show the result as a page."""
    for level in (*result.relay, *result.latency):
        console.print(_level_table(level, cpu=level in result.relay))
        for line in _level_remarks(level):
            console.print(line, highlight=False)
    if result.carried is not None:
        console.print(_carried_table(result.carried.chunks, result.carried.bodies))
    if result.idle:
        console.print(_idle_table(result.idle))
    if result.storms:
        console.print(_storm_table(result.storms))
    if result.interrupted:
        console.print("[yellow]Interrupted: these are the parts that were complete by then.[/]")


def _level_table(level: RelayLevel, *, cpu: bool) -> Table:
    table = Table(title=f"Relay, {level.load}", title_justify="left")
    for name in ("", "direct", "via", "median of rounds", "95 % interval"):
        table.add_column(name, justify="left" if not name else "right")
    direct, via = level.direct_delay, level.via_delay
    table.add_row("chunks/s", _middle(level.direct_chunks_per_s), "", *_cells(level.chunks_per_s, 1, ".0f"))
    rows = (
        ("chunk's way p50, ms", _at(direct, 50), _at(via, 50), level.added_delay_p50_s),
        ("chunk's way p99, ms", _at(direct, 99), _at(via, 99), level.added_delay_p99_s),
        ("TTFT p50, ms", _at(level.direct_ttft, 50), _at(level.via_ttft, 50), level.added_ttft_p50_s),
    )
    for name, alone, behind, added in rows:
        table.add_row(name, alone, behind, *_cells(added, 1000, "+.2f"))
    for name, spent in level.cpu_per_100k_s.items() if cpu else ():
        table.add_row(f"CPU of {name}, s/100k", "", "", *_cells(spent, 1, ".2f"))
    return table


def _level_remarks(level: RelayLevel) -> list[str]:
    remarks = [f"[red]{count} x {kind}[/]" for kind, count in level.errors.items()]
    if level.spoiled_rounds:
        remarks.append(f"[yellow]{level.spoiled_rounds} rounds had failures and are left out.[/]")
    if level.generator.at_its_limit:
        remarks.append(report.limit_remark(level.generator))
    return remarks


def _carried_table(chunks: Sequence[ChunksCarried], bodies: BodiesCarried | None) -> Table:
    table = Table(title="One tunnel by itself", title_justify="left")
    for name in ("", "reached", "CPU of hub end", "CPU of node end"):
        table.add_column(name, justify="left" if not name else "right")
    for each in chunks:
        way = "one way" if each.ways == 1 else "both ways"
        cpu = [f"{spent / each.chunks * _PER:.2f} s/100k" for spent in (each.hub_cpu_s, each.node_cpu_s)]
        table.add_row(f"chunks, {way}", f"{each.chunks / each.seconds:,.0f} /s", *cpu)
    if bodies is not None:
        for way, seconds in (("to the node", bodies.to_node_s), ("from the node", bodies.from_node_s)):
            rates = [BODY_BYTES / each / 1e6 for each in seconds]
            reached = f"{median(rates):.0f} MB/s ({min(rates):.0f} to {max(rates):.0f})"
            table.add_row(f"8 MiB {way}", reached, "", "")
    return table


def _idle_table(found: Sequence[IdleSessions]) -> Table:
    table = Table(title="Idle sessions", title_justify="left")
    for name in ("sessions", "memory of each", "of the process", "of it without any"):
        table.add_column(name, justify="right")
    for idle in found:
        sizes = (f"{idle.memory / _MIB:.0f} MiB", f"{idle.before / _MIB:.0f} MiB")
        table.add_row(str(idle.count), f"{idle.each / _KIB:.1f} KiB", *sizes)
    return table


def _storm_table(storms: Sequence[Storm]) -> Table:
    table = Table(title="All nodes come back after the Hub's loss", title_justify="left")
    for name in ("nodes", "let in", "all back", "peak memory", "CPU", "told to wait", "lost"):
        table.add_column(name, justify="right")
    for storm in storms:
        lost = ", ".join(f"{count} {reason}" for reason, count in storm.lost.items())
        table.add_row(
            str(storm.nodes),
            f"{storm.handshakes_per_s:g} /s",
            f"{storm.seconds:.1f} s",
            f"{storm.peak_memory / _MIB:.0f} MiB",
            f"{storm.hub_cpu_s:.1f} s",
            str(storm.refused),
            f"[red]{lost}[/]" if lost else "0",
        )
    return table


def _at(summary: Summary | None, percent: int) -> str:
    if summary is None:
        return "-"
    return f"{(summary.p50 if percent == 50 else summary.p99) * 1000:.2f}"


def _middle(interval: Interval | None) -> str:
    return f"{interval.median:.0f}" if interval else "-"


def _cells(interval: Interval | None, scale: float, form: str) -> tuple[str, str]:
    if interval is None:
        return "-", "-"
    low, high = (format(each * scale, form) for each in (interval.low, interval.high))
    return format(interval.median * scale, form), f"{low} to {high}"
