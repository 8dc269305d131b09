"""The result of `porten-bench overhead`, and of every benchmark that has two sides take turns.

Owns which figures are told of a comparison, its remarks and its details.
"""

import msgspec

from benchmarks.figures.bounds import RATIO, Better, Figure, scaled
from benchmarks.figures.metrics import ServingMetrics
from benchmarks.figures.statistics import Summary
from benchmarks.overhead.comparing import Comparison, Level
from benchmarks.reports.result import Made, Remark, Result, group
from benchmarks.serving import report as serving_report

SIDES = ("direct", "via")


def report(found: Comparison, made: Made) -> Result:
    """The result as it is shown and written."""
    plan = found.plan
    return Result(
        benchmark="overhead",
        made=made,
        settings={
            "direct": serving_report.target_settings(found.direct),
            "via": serving_report.target_settings(found.via),
            "workload": serving_report.workload_settings(plan.workload),
            "concurrency": list(plan.concurrency),
            "rounds": plan.rounds,
            "requests": plan.requests,
        },
        groups=[group(_title(level), figures(level), sides=SIDES) for level in found.levels],
        remarks=remarks(found),
        interrupted=found.interrupted,
        details=details(found),
    )


def _title(level: Level) -> str:
    streams = "1 stream" if level.concurrency == 1 else f"{level.concurrency} streams"
    return f"{streams}, {level.rounds - level.spoiled_rounds} rounds"


def figures(level: Level, prefix: str = "") -> list[Figure]:
    """What is told of one number of streams; ``prefix`` begins the keys."""
    at = f"{prefix}c{level.concurrency}"
    direct, via = level.direct, level.via
    found = [
        Figure(
            key=f"{at}/throughput_ratio",
            name="output tokens/s",
            unit=RATIO,
            found=level.throughput_ratio,
            which_is_better=Better.MORE,
            direct=f"{direct.output_tokens_per_s:.1f}",
            via=f"{via.output_tokens_per_s:.1f}",
        ),
        Figure(
            key=f"{at}/added_ttft_ms",
            name="TTFT p50, added",
            unit="ms",
            found=scaled(level.added_ttft_s, 1000),
            direct=_p50(direct.ttft),
            via=_p50(via.ttft),
        ),
    ]
    for key, name, ratio, sides in (
        ("tpot_ratio", "TPOT p50", level.tpot_ratio, (direct.tpot, via.tpot)),
        ("e2el_ratio", "E2EL p50", level.e2el_ratio, (direct.e2el, via.e2el)),
    ):
        told = [_p50(side) for side in sides]
        found.append(
            Figure(key=f"{at}/{key}", name=name, unit=RATIO, found=ratio, direct=told[0], via=told[1])
        )
    return found + _cpu(level, at)


def _cpu(level: Level, at: str) -> list[Figure]:
    return [
        Figure(
            key=f"{at}/{name}_cpu_ms_per_token",
            name=f"CPU of {name}, a token",
            unit="ms",
            found=scaled(spent, 1000),
        )
        for name, spent in level.cpu_per_token_s.items()
    ]


def _p50(summary: Summary | None) -> str:
    return f"{summary.p50 * 1000:.2f}" if summary else "-"


def remarks(found: Comparison) -> list[Remark]:
    """What a reader of the figures must know: failures, and a generator near its limit."""
    return [remark for level in found.levels for remark in _level_remarks(level)]


def _level_remarks(level: Level) -> list[Remark]:
    told = []
    if level.spoiled_rounds:
        spoiled = f"{level.spoiled_rounds} of {level.rounds} rounds at {level.concurrency} streams"
        told.append(Remark(code="rounds_spoiled", text=f"{spoiled} had failures and are left out."))
    told += serving_report.error_remarks(level.direct) + serving_report.error_remarks(level.via)
    if level.generator.at_its_limit:
        told.append(serving_report.limit_remark(level.generator))
    return told


def details(found: Comparison) -> dict[str, object]:
    """Everything of both sides, all rounds pooled."""
    return {"levels": [_level_details(level) for level in found.levels]}


def _level_details(level: Level) -> dict[str, object]:
    sides: dict[str, ServingMetrics] = {"direct": level.direct, "via": level.via}
    return {
        "concurrency": level.concurrency,
        "rounds": level.rounds,
        "spoiled_rounds": level.spoiled_rounds,
        "cpu_ms_per_token": {name: each.median * 1000 for name, each in level.cpu_per_token_s.items()},
        "generator": msgspec.to_builtins(level.generator),
    } | {name: serving_report.metrics_details(metrics) for name, metrics in sides.items()}
