"""The result of `porten-bench overhead`, and of every benchmark that has sides take turns.

Owns which figures are told of a comparison, their keys, its remarks and its details. Where one side is
measured against another, its name is in no key; where several are, each has its own.
"""

from collections.abc import Iterator

import msgspec

from benchmarks.figures.bounds import RATIO, Better, Figure, scaled
from benchmarks.figures.statistics import Interval, Summary
from benchmarks.overhead.comparing import Comparison, Level, SideLevel
from benchmarks.overhead.measuring import OverheadResult, ScriptedLoads
from benchmarks.reports.result import Made, Remark, Result, group
from benchmarks.serving import report as serving_report

_REQUESTS = 1000
_CHUNKS = 100_000


def started(found: OverheadResult, made: Made) -> Result:
    """The result where everything was started for it: the peers that were not here are named."""
    told = report(found.comparison, made)
    asked = found.plan.asked
    engine = "scripted" if isinstance(asked, ScriptedLoads) else asked.choice.backend
    absent = [
        Remark(code="peer_absent", text=f"{name} is left out: {why}.") for name, why in found.absent.items()
    ]
    return msgspec.structs.replace(
        told, settings=told.settings | {"engine": engine}, remarks=[*told.remarks, *absent]
    )


def report(found: Comparison, made: Made) -> Result:
    """The result as it is shown and written."""
    first, *others = (side.name for side in found.sides)
    return Result(
        benchmark="overhead",
        made=made,
        settings=_settings(found),
        groups=[
            group(_title(level), figures(level), sides=(first, others[0] if len(others) == 1 else "this way"))
            for level in found.levels
        ],
        remarks=remarks(found),
        interrupted=found.interrupted,
        details=details(found),
    )


def _settings(found: Comparison) -> dict[str, object]:
    return {
        "sides": {side.name: serving_report.target_settings(side.target) for side in found.sides},
        "rounds": found.plan.rounds,
        "loads": [
            {
                "key": load.key,
                "concurrency": load.concurrency,
                "requests": load.requests,
                "stream": load.stream,
                "workload": serving_report.workload_settings(load.workload),
            }
            for load in found.plan.loads
        ],
    }


def _title(level: Level) -> str:
    return f"{level.load.title}, {level.rounds} rounds"


def figures(level: Level) -> list[Figure]:
    """What is told of one load: the sides below each other, figure by figure."""
    rows = [list(_of_side(level, side)) for side in level.others]
    compared = [figure for same in zip(*rows, strict=True) for figure in same]
    return compared + [figure for side in level.sides for figure in _cpu(level, side)]


def _place(level: Level, side: SideLevel) -> tuple[str, str]:
    """What stands before a side's keys, and after its names."""
    at = level.load.key
    return (at, "") if len(level.others) == 1 else (f"{at}/{side.name}", f": {side.name}")


def _of_side(level: Level, side: SideLevel) -> Iterator[Figure]:
    at, who = _place(level, side)
    first, own = level.first.metrics, side.metrics

    def ratio(
        key: str, name: str, found: Interval | None, told: tuple[str, str], better: Better = Better.LESS
    ) -> Figure:
        return Figure(
            key=f"{at}/{key}", name=f"{name}{who}", unit=RATIO, found=found, which_is_better=better,
            direct=told[0], via=told[1],
        )  # fmt: skip

    rates = f"{first.output_tokens_per_s:.1f}", f"{own.output_tokens_per_s:.1f}"
    if not level.load.stream:
        rates = f"{first.requests_per_s:.0f}", f"{own.requests_per_s:.0f}"
    what = "output tokens/s" if level.load.stream else "requests/s"
    yield ratio("throughput_ratio", what, side.throughput_ratio, rates, Better.MORE)
    if level.load.stream:
        yield Figure(
            key=f"{at}/added_ttft_ms", name=f"TTFT p50, added{who}", unit="ms",
            found=scaled(side.added_ttft_s, 1000), direct=_p50(first.ttft), via=_p50(own.ttft),
        )  # fmt: skip
        if not _of_one_token(level):
            yield ratio("tpot_ratio", "TPOT p50", side.tpot_ratio, (_p50(first.tpot), _p50(own.tpot)))
    yield ratio("e2el_ratio", "E2EL p50", side.e2el_ratio, (_p50(first.e2el), _p50(own.e2el)))
    if any(each.cpu_ratio for each in level.others):
        yield ratio("cpu_ratio", "CPU of all and of the generator", side.cpu_ratio, ("", ""))


def _of_one_token(level: Level) -> bool:
    """Whether answers were streamed, and had no second token that could take its time."""
    metrics = [side.metrics for side in level.sides]
    return any(each.ttft for each in metrics) and not any(each.tpot for each in metrics)


def _cpu(level: Level, side: SideLevel) -> Iterator[Figure]:
    """What a side's processes take: for chunks where answers have several, for requests where not."""
    at, who = _place(level, side)
    if side is level.first:
        at = f"{level.load.key}/{side.name}"
    for name, spent in side.cpu.items():
        if side is not level.first and name in level.first.cpu:
            continue  # the engine, which does the same for all
        whose = f"CPU of {name}" if not who or name == side.name else f"CPU of {name}{who}"
        if spent.per_chunk_s is None:
            key, per, found = "1000_requests", "1,000 requests", spent.per_request_s.scaled(_REQUESTS)
        else:
            key, per, found = "100k_chunks", "100,000 chunks", spent.per_chunk_s.scaled(_CHUNKS)
        yield Figure(key=f"{at}/{name}_cpu_s_per_{key}", name=f"{whose}, {per}", unit="s", found=found)


def _p50(summary: Summary | None) -> str:
    return f"{summary.p50 * 1000:.2f}" if summary else "-"


def remarks(found: Comparison) -> list[Remark]:
    """What a reader of the figures must know: failures, and a generator near its limit."""
    return [remark for level in found.levels for remark in _level_remarks(level)]


def _level_remarks(level: Level) -> list[Remark]:
    told = []
    if _of_one_token(level):
        text = (
            f"{level.load.title}: an answer of one token has no time per token after it, so TPOT is left out."
        )
        told.append(Remark(code="one_token", text=text))
    for side in level.others:
        if side.spoiled_rounds:
            spoiled = f"{side.spoiled_rounds} of {level.rounds} rounds of {side.name} at {level.load.title}"
            told.append(Remark(code="rounds_spoiled", text=f"{spoiled} had failures and are left out."))
    for side in level.sides:
        told += serving_report.error_remarks(side.metrics)
    if busy := [side for side in level.others if side.generator.at_its_limit]:
        told.append(
            serving_report.limit_remark(max((side.generator for side in busy), key=lambda use: use.busy))
        )
    return told


def details(found: Comparison) -> dict[str, object]:
    """Everything of all sides, all rounds pooled."""
    return {"levels": [_level_details(level) for level in found.levels]}


def _level_details(level: Level) -> dict[str, object]:
    return {
        "load": level.load.key,
        "concurrency": level.load.concurrency,
        "rounds": level.rounds,
        "spoiled_rounds": {side.name: side.spoiled_rounds for side in level.others},
        "cpu_s_per_1000_requests": {
            side.name: {name: used.per_request_s.median * _REQUESTS for name, used in side.cpu.items()}
            for side in level.sides
        },
        "generator": {side.name: msgspec.to_builtins(side.generator) for side in level.sides},
    } | {side.name: serving_report.metrics_details(side.metrics) for side in level.sides}
