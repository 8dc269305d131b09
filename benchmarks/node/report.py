"""The result of `porten-bench node`.

Owns the bounds the daemon is to keep, and which figures tell whether it does.
"""

from typing import Final

from benchmarks.figures.bounds import RATIO, Bound, Figure, scaled
from benchmarks.figures.metrics import ServingMetrics
from benchmarks.node.measuring import IdleUse, NodeResult
from benchmarks.node.plots import plots
from benchmarks.overhead import report as overhead_report
from benchmarks.overhead.comparing import Comparison, Level
from benchmarks.reports.result import Group, Made, Remark, Result, group
from runtime.devices import usable_threads

THROUGHPUT_ON_ALL_CORES: Final = Bound(0.97, at_least=True)
THROUGHPUT_WITH_A_CORE_FREE: Final = Bound(0.99, at_least=True)
ADDED_TTFT_MS: Final = Bound(1.0)
CPU_MS_PER_TOKEN: Final = Bound(0.4)
IDLE_CPU_PERCENT: Final = Bound(0.5)
RESIDENT_MB: Final = Bound(120.0)
SIDES: Final = ("engine", "node")
_MB: Final = 1_000_000


def report(found: NodeResult, made: Made) -> Result:
    """The result as it is shown and written."""
    plan, groups = found.plan, _groups(found)
    return Result(
        benchmark="node",
        made=made,
        settings={
            "backend": plan.choice.backend,
            "model": plan.choice.model,
            "threads": list(plan.threads),
            "streams": list(plan.streams),
            "rounds": plan.rounds,
            "output_tokens": plan.output_tokens,
            "pairs": plan.pairs,
            "idle_s": plan.idle_s,
            "seed": plan.seed,
        },
        groups=groups,
        plots=plots(groups),
        remarks=_remarks(found),
        interrupted=found.interrupted,
        details={
            "relay": {str(cores): overhead_report.details(each) for cores, each in found.relays.items()},
            "one_by_one": overhead_report.details(found.one_by_one) if found.one_by_one else None,
        },
    )


def _remarks(found: NodeResult) -> list[Remark]:
    comparisons = [*found.relays.values(), *([found.one_by_one] if found.one_by_one else [])]
    return [remark for each in comparisons for remark in overhead_report.remarks(each)]


def _groups(found: NodeResult) -> list[Group]:
    cores = usable_threads()
    groups = [
        group(f"Engine on {threads} of {cores} cores", _relay(each, threads, cores), sides=SIDES)
        for threads, each in found.relays.items()
    ]
    if found.one_by_one is not None:
        levels = found.one_by_one.levels
        alone = [_added_ttft(level, "one_by_one/added_ttft_ms", "TTFT p50") for level in levels]
        groups.append(group("Requests one by one", alone, sides=SIDES))
    if found.idle is not None:
        title = f"The daemon idle for {found.idle.seconds:.0f} s, its model loaded"
        groups.append(group(title, _idle(found.idle)))
    return groups


def _relay(comparison: Comparison, threads: int, cores: int) -> list[Figure]:
    figures = []
    # By cores left free, not by cores used: so machines of other sizes can be laid side by side.
    place = f"{cores - threads}_cores_free"
    bound = THROUGHPUT_ON_ALL_CORES if threads >= cores else THROUGHPUT_WITH_A_CORE_FREE
    for level in comparison.levels:
        at, streams = f"{place}/c{level.load.concurrency}", level.load.title
        figures += [
            _throughput(level, f"{at}/throughput_ratio", f"tokens/s, {streams}", bound),
            _added_ttft(level, f"{at}/added_ttft_ms", f"TTFT p50, {streams}"),
            _cpu(level, f"{at}/daemon_cpu_ms_per_token", f"CPU a token, {streams}"),
        ]
    return figures


def _throughput(level: Level, key: str, name: str, bound: Bound) -> Figure:
    direct, via = (f"{side.output_tokens_per_s:.1f}" for side in _metrics(level))
    return Figure(
        key=key, name=name, unit=RATIO, found=level.via.throughput_ratio, bound=bound, direct=direct, via=via
    )


def _added_ttft(level: Level, key: str, name: str) -> Figure:
    direct, via = (_ttft(side) for side in _metrics(level))
    return Figure(
        key=key,
        name=name,
        unit="ms",
        found=scaled(level.via.added_ttft_s, 1000),
        bound=ADDED_TTFT_MS,
        direct=direct,
        via=via,
    )


def _metrics(level: Level) -> tuple[ServingMetrics, ServingMetrics]:
    return level.first.metrics, level.via.metrics


def _ttft(metrics: ServingMetrics) -> str:
    return f"{metrics.ttft.p50 * 1000:.1f}" if metrics.ttft else ""


def _cpu(level: Level, key: str, name: str) -> Figure:
    spent = level.via.cpu.get("daemon")
    found = spent.per_token_s.scaled(1000) if spent else None
    return Figure(key=key, name=name, unit="ms", found=found, bound=CPU_MS_PER_TOKEN)


def _idle(idle: IdleUse) -> list[Figure]:
    cpu, memory = idle.cpu * 100, idle.resident_bytes / _MB
    return [
        Figure(key="idle/cpu_percent", name="CPU of one core", unit="%", found=cpu, bound=IDLE_CPU_PERCENT),
        Figure(key="idle/rss_mb", name="memory (RSS)", unit="MB", found=memory, bound=RESIDENT_MB),
    ]
