"""Results as people read them and as programs do.

Owns the tables and the JSON documents with their versioned schemas (``porten.bench.serving/1``,
``porten.bench.overhead/1``: a change that breaks a reader raises the number). In JSON times are
milliseconds. API keys never get here: targets are written field by field.
"""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import msgspec
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from benchmarks.load import Load, OpenLoop
from benchmarks.metrics import ServingMetrics
from benchmarks.overhead import Comparison, Level
from benchmarks.serving import GeneratorUse, ServingResult
from benchmarks.statistics import Interval, Summary
from benchmarks.target import Target
from benchmarks.workloads import Workload

SERVING_SCHEMA: Final = "porten.bench.serving/1"
OVERHEAD_SCHEMA: Final = "porten.bench.overhead/1"

Document = dict[str, object]


def serving_document(
    result: ServingResult, *, command: Sequence[str], environment: Mapping[str, object]
) -> Document:
    """The serving result for a JSON file."""
    plan = result.plan
    return envelope(SERVING_SCHEMA, command, environment) | {
        "target": _target(plan.target),
        "workload": _workload(plan.workload),
        "load": _load(plan.load),
        "limit": msgspec.to_builtins(plan.limit),
        "warmup": msgspec.to_builtins(plan.warmup),
        "results": metrics_document(result.metrics),
        "generator": generator_document(result.generator),
    }


def overhead_document(
    comparison: Comparison, *, command: Sequence[str], environment: Mapping[str, object]
) -> Document:
    """The comparison for a JSON file."""
    return envelope(OVERHEAD_SCHEMA, command, environment) | comparison_document(comparison)


def comparison_document(comparison: Comparison) -> Document:
    """What was compared and what came of it."""
    return {
        "direct": _target(comparison.direct),
        "via": _target(comparison.via),
        "workload": _workload(comparison.plan.workload),
        "rounds": comparison.plan.rounds,
        "interrupted": comparison.interrupted,
        "levels": [_level(level) for level in comparison.levels],
    }


def metrics_document(metrics: ServingMetrics) -> Document:
    """The figures of one run for JSON; latencies in milliseconds."""
    return {
        "duration_s": round(metrics.duration_s, 6),
        "completed": metrics.completed,
        "failed": metrics.failed,
        "unfinished": metrics.unfinished,
        "interrupted": metrics.interrupted,
        "prompt_tokens": metrics.prompt_tokens,
        "output_tokens": metrics.output_tokens,
        "output_tokens_counted_by": metrics.counted_by,
        "requests_per_s": metrics.requests_per_s,
        "output_tokens_per_s": metrics.output_tokens_per_s,
        "ttft_ms": milliseconds(metrics.ttft),
        "itl_ms": milliseconds(metrics.itl),
        "tpot_ms": milliseconds(metrics.tpot),
        "e2el_ms": milliseconds(metrics.e2el),
        "send_lag_ms": milliseconds(metrics.send_lag),
        "errors": metrics.errors,
        "error_detail": metrics.error_detail,
    }


def write_json(document: Document, path: Path) -> None:
    """Write the document, indented, since people look into it too.

    Raises:
        OSError: the file cannot be written.
    """
    path.write_bytes(json_bytes(document))


def json_bytes(document: Document) -> bytes:
    """The document as indented JSON with a line end."""
    return msgspec.json.format(msgspec.json.encode(document), indent=2) + b"\n"


def print_serving(console: Console, result: ServingResult) -> None:
    """Show a serving result as a page."""
    metrics, plan = result.metrics, result.plan
    console.print(f"\n[bold]{plan.target.model}[/] at {plan.target.base_url}, {plan.load}", highlight=False)
    console.print(_counts_table(metrics, plan.workload.seed))
    console.print(_latency_table(metrics))
    for line in _remarks(metrics, result.generator):
        console.print(line, highlight=False)


def print_comparison(console: Console, comparison: Comparison) -> None:
    """Show a comparison as a page."""
    console.print(f"\n{comparison.via.base_url} against {comparison.direct.base_url}", highlight=False)
    for level in comparison.levels:
        console.print(_comparison_table(level))
    for line in comparison_remarks(comparison):
        console.print(line, highlight=False)


def comparison_remarks(comparison: Comparison) -> list[str]:
    """What a reader of the figures must know: failures, and a generator near its limit."""
    return [line for level in comparison.levels for line in _level_remarks(level)]


def _level_remarks(level: Level) -> list[str]:
    remarks = _error_lines(level.direct) + _error_lines(level.via)
    if level.spoiled_rounds:
        spoiled = f"{level.spoiled_rounds} of {level.rounds} rounds at {level.concurrency} streams"
        remarks.insert(0, f"[yellow]{spoiled} had failures and are left out.[/]")
    if level.generator.at_its_limit:
        remarks.append(limit_remark(level.generator))
    return remarks


def _counts_table(metrics: ServingMetrics, seed: int) -> Table:
    table = Table(show_header=False, box=None)
    table.add_column(style="bold")
    table.add_column(justify="right")
    failed = f", [red]{metrics.failed} failed[/]" if metrics.failed else ""
    unfinished = f", {metrics.unfinished} cut off" if metrics.unfinished else ""
    table.add_row("Requests", f"{metrics.completed} complete{failed}{unfinished}")
    table.add_row("Time", f"{metrics.duration_s:.2f} s")
    table.add_row("Prompt tokens", str(metrics.prompt_tokens))
    table.add_row("Output tokens", str(metrics.output_tokens))
    table.add_row("Requests/s", f"{metrics.requests_per_s:.2f}")
    table.add_row("Output tokens/s", f"{metrics.output_tokens_per_s:.1f}")
    table.add_row("Seed", str(seed))
    return table


def _latency_table(metrics: ServingMetrics) -> Table:
    table = Table(title="Latency in ms", title_justify="left")
    table.add_column("")
    for name in ("mean", "p50", "p90", "p99"):
        table.add_column(name, justify="right")
    rows = (
        ("TTFT  time to first token", metrics.ttft),
        ("ITL   between chunks", metrics.itl),
        ("TPOT  per token after the first", metrics.tpot),
        ("E2EL  to the last token", metrics.e2el),
    )
    for name, summary in rows:
        values = (summary.mean, summary.p50, summary.p90, summary.p99) if summary else ()
        table.add_row(name, *([f"{value * 1000:.2f}" for value in values] or ["-"] * 4))
    return table


def _remarks(metrics: ServingMetrics, generator: GeneratorUse) -> list[str]:
    remarks = _error_lines(metrics)
    if metrics.counted_by in {"chunks", "both"}:
        remarks.append(
            "[yellow]The endpoint gave no usage for some answers: their tokens are counted by chunks, "
            "of which each may hold several tokens or none.[/]"
        )
    lag = metrics.send_lag
    if lag and lag.p99 > 0.005:
        remarks.append(f"[yellow]Requests left late: p99 {lag.p99 * 1000:.1f} ms after they were due.[/]")
    if generator.at_its_limit:
        remarks.append(limit_remark(generator))
    if metrics.interrupted:
        remarks.append("[yellow]Interrupted: these are the requests that were complete by then.[/]")
    return remarks


def _error_lines(metrics: ServingMetrics) -> list[str]:
    details = metrics.error_detail
    return [f"[red]{count} x {kind}[/]: {escape(details[kind])}" for kind, count in metrics.errors.items()]


def limit_remark(generator: GeneratorUse) -> str:
    """What is to be said where the generator may have been the slow part."""
    return (
        f"[yellow]The load generator was busy {generator.busy:.0%} of a core: the endpoint may be faster "
        "than this shows. Ask for less, or run several generators.[/]"
    )


def _comparison_table(level: Level) -> Table:
    title = f"{level.concurrency} streams, {level.rounds - level.spoiled_rounds} rounds"
    table = Table(title=title, title_justify="left")
    for name in ("", "direct", "via", "median of rounds", "95 % interval"):
        table.add_column(name, justify="left" if not name else "right")
    direct, via = level.direct, level.via
    table.add_row(
        "output tokens/s",
        f"{direct.output_tokens_per_s:.1f}",
        f"{via.output_tokens_per_s:.1f}",
        *_ratio_cells(level.throughput_ratio),
    )
    table.add_row("TTFT p50, ms", _p50(direct.ttft), _p50(via.ttft), *_added_cells(level.added_ttft_s))
    table.add_row("TPOT p50, ms", _p50(direct.tpot), _p50(via.tpot), *_ratio_cells(level.tpot_ratio))
    table.add_row("E2EL p50, ms", _p50(direct.e2el), _p50(via.e2el), *_ratio_cells(level.e2el_ratio))
    for name, seconds in level.cpu_per_token_s.items():
        table.add_row(f"CPU of {name}, ms/token", "", f"{seconds * 1000:.3f}", "", "")
    if len(level.cpu_per_token_s) > 1:
        total = sum(level.cpu_per_token_s.values())
        table.add_row("CPU of all, ms/token", "", f"{total * 1000:.3f}", "", "")
    return table


def _p50(summary: Summary | None) -> str:
    return f"{summary.p50 * 1000:.2f}" if summary else "-"


def _ratio_cells(interval: Interval | None) -> tuple[str, str]:
    if interval is None:
        return "-", "-"
    return f"x {interval.median:.3f}", f"{interval.low:.3f} to {interval.high:.3f}"


def _added_cells(interval: Interval | None) -> tuple[str, str]:
    if interval is None:
        return "-", "-"
    low, high = interval.low * 1000, interval.high * 1000
    return f"{interval.median * 1000:+.2f} ms", f"{low:+.2f} to {high:+.2f}"


def envelope(schema: str, command: Sequence[str], environment: Mapping[str, object]) -> Document:
    """What every result begins with."""
    return {
        "schema": schema,
        "created_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": list(command),
        "environment": dict(environment),
    }


def _target(target: Target) -> Document:
    return {
        "base_url": target.base_url,
        "model": target.model,
        "api": target.api.value,
        "stream": target.stream,
        "ignore_eos": target.ignore_eos,
        "timeout_s": target.timeout_s,
    }


def _load(load: Load) -> Document:
    if isinstance(load, OpenLoop):
        return {"kind": "open", "rate": load.rate, "arrivals": load.arrivals.value, "seed": load.seed}
    return {"kind": "closed", "concurrency": load.concurrency}


def _workload(workload: Workload) -> Document:
    return {
        "prompt_tokens": str(workload.prompt_tokens),
        "output_tokens": str(workload.output_tokens),
        "shared_prefix": workload.shared_prefix,
        "seed": workload.seed,
    }


def _level(level: Level) -> Document:
    return {
        "concurrency": level.concurrency,
        "rounds": level.rounds,
        "spoiled_rounds": level.spoiled_rounds,
        "throughput_ratio": interval_document(level.throughput_ratio),
        "added_ttft_ms": interval_document(level.added_ttft_s, scale=1000),
        "e2el_ratio": interval_document(level.e2el_ratio),
        "tpot_ratio": interval_document(level.tpot_ratio),
        "cpu_ms_per_token": {name: seconds * 1000 for name, seconds in level.cpu_per_token_s.items()},
        "direct": metrics_document(level.direct),
        "via": metrics_document(level.via),
        "generator": generator_document(level.generator),
    }


def generator_document(generator: GeneratorUse) -> Document:
    """What measuring itself took."""
    return {"cpu_s": generator.cpu_s, "cores_busy": generator.busy, "at_its_limit": generator.at_its_limit}


def milliseconds(summary: Summary | None) -> Document | None:
    """A summary of seconds, told in milliseconds."""
    if summary is None:
        return None
    values = {"mean", "p50", "p90", "p99", "minimum", "maximum"}
    return {"count": summary.count} | {
        name: getattr(summary, name) * 1000 for name in Summary.__slots__ if name in values
    }


def interval_document(interval: Interval | None, *, scale: float = 1.0) -> Document | None:
    """A median with its bounds; `scale` turns seconds into milliseconds."""
    if interval is None:
        return None
    return {
        "median": interval.median * scale,
        "low": interval.low * scale,
        "high": interval.high * scale,
        "confidence": interval.confidence,
        "rounds": interval.count,
    }
