"""The result of `porten-bench node` as people read it and as programs do (schema ``porten.bench.node/1``).

Owns the bounds the daemon is to keep, its tables and its document.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Final

from rich.console import Console

from benchmarks import figures, report
from benchmarks.bounds import RATIO, Bound, Figure, scaled
from benchmarks.metrics import ServingMetrics
from benchmarks.node_bench import IdleUse, NodeResult
from benchmarks.overhead import Comparison, Level
from runtime.devices import usable_threads

NODE_SCHEMA: Final = "porten.bench.node/1"
THROUGHPUT_ON_ALL_CORES: Final = Bound(0.97, at_least=True)
THROUGHPUT_WITH_A_CORE_FREE: Final = Bound(0.99, at_least=True)
ADDED_TTFT_MS: Final = Bound(1.0)
CPU_MS_PER_TOKEN: Final = Bound(0.4)
IDLE_CPU_PERCENT: Final = Bound(0.5)
RESIDENT_MB: Final = Bound(120.0)
_MB: Final = 1_000_000


def document(
    result: NodeResult, *, command: Sequence[str], environment: Mapping[str, object]
) -> report.Document:
    """The result for a JSON file."""
    plan = result.plan
    return report.envelope(NODE_SCHEMA, command, environment) | {
        "backend": plan.choice.backend,
        "model": plan.choice.model,
        "rounds": plan.rounds,
        "seed": plan.seed,
        "interrupted": result.interrupted,
        "figures": [
            {"part": title, "figures": figures.document(found)} for title, found in _parts(result).items()
        ],
        "relay": {str(threads): report.comparison_document(each) for threads, each in result.relays.items()},
        "one_by_one": report.comparison_document(result.one_by_one) if result.one_by_one else None,
        "idle": _idle_document(result.idle) if result.idle else None,
    }


def _idle_document(idle: IdleUse) -> report.Document:
    return {"seconds": idle.seconds, "cpu": idle.cpu, "resident_bytes": idle.resident_bytes}


def show(console: Console, result: NodeResult) -> None:
    """Show the result as a page."""
    for title, found in _parts(result).items():
        figures.show(console, title, found)
    for comparison in (*result.relays.values(), *([result.one_by_one] if result.one_by_one else [])):
        for line in report.comparison_remarks(comparison):
            console.print(line, highlight=False)
    if result.interrupted:
        console.print("[yellow]Interrupted: these are the rounds that were complete by then.[/]")


def _parts(result: NodeResult) -> dict[str, list[Figure]]:
    """The figures of each part, by the part's title."""
    cores = usable_threads()
    parts = {
        f"Engine on {threads} of {cores} cores": _relay(comparison, all_cores=threads >= cores)
        for threads, comparison in result.relays.items()
    }
    if result.one_by_one is not None:
        parts["Requests one by one"] = [_added_ttft(level, "TTFT p50") for level in result.one_by_one.levels]
    if result.idle is not None:
        parts[f"The daemon idle for {result.idle.seconds:.0f} s, its model loaded"] = _idle(result.idle)
    return parts


def _relay(comparison: Comparison, *, all_cores: bool) -> list[Figure]:
    bound = THROUGHPUT_ON_ALL_CORES if all_cores else THROUGHPUT_WITH_A_CORE_FREE
    rows: tuple[Callable[[Level, str], Figure], ...] = (
        lambda level, streams: _throughput(level, f"tokens/s, {streams}", bound),
        lambda level, streams: _added_ttft(level, f"TTFT p50, {streams}"),
        lambda level, streams: _cpu(level, f"CPU a token, {streams}"),
    )
    return [row(level, _streams(level)) for row in rows for level in comparison.levels]


def _streams(level: Level) -> str:
    return "1 stream" if level.concurrency == 1 else f"{level.concurrency} streams"


def _throughput(level: Level, name: str, bound: Bound) -> Figure:
    reached = [f"{side.output_tokens_per_s:.1f}" for side in (level.direct, level.via)]
    return Figure(name, RATIO, level.throughput_ratio, bound, *reached)


def _added_ttft(level: Level, name: str) -> Figure:
    found = scaled(level.added_ttft_s, 1000)
    return Figure(name, "ms", found, ADDED_TTFT_MS, _ttft(level.direct), _ttft(level.via))


def _ttft(metrics: ServingMetrics) -> str:
    return f"{metrics.ttft.p50 * 1000:.1f}" if metrics.ttft else ""


def _cpu(level: Level, name: str) -> Figure:
    spent = level.cpu_per_token_s.get("daemon")
    return Figure(name, "ms", None if spent is None else spent * 1000, CPU_MS_PER_TOKEN)


def _idle(idle: IdleUse) -> list[Figure]:
    return [
        Figure("CPU of one core", "%", idle.cpu * 100, IDLE_CPU_PERCENT),
        Figure("memory (RSS)", "MB", idle.resident_bytes / _MB, RESIDENT_MB),
    ]
