"""The result of `porten-bench tunnel`.

Owns which figures are told of each part.
"""

from collections.abc import Sequence
from typing import Final

from benchmarks.figures.bounds import Better, Figure, scaled
from benchmarks.figures.statistics import Interval, Summary, bootstrap_median
from benchmarks.reports.result import Group, Made, Remark, Result, group
from benchmarks.serving import report as serving_report
from benchmarks.tunnel.bare import IdleSessions, Storm
from benchmarks.tunnel.measuring import TunnelResult
from benchmarks.tunnel.plots import plots
from benchmarks.tunnel.relay import RelayLevel, StreamLoad
from benchmarks.tunnel.server import BODY_BYTES, BodiesCarried, ChunksCarried

SIDES: Final = ("direct", "via")
_KIB: Final = 1024
_MIB: Final = 1024 * 1024
_PER: Final = 100_000


def report(found: TunnelResult, made: Made) -> Result:
    """The result as it is shown and written."""
    plan = found.plan
    levels = (*found.relay, *found.latency)
    groups = _groups(found)
    return Result(
        benchmark="tunnel",
        made=made,
        settings={"parts": sorted(plan.parts), "rounds": plan.rounds, "seed": plan.seed},
        groups=groups,
        plots=plots(groups, found.storms),
        remarks=[remark for level in levels for remark in _remarks(level)],
        interrupted=found.interrupted,
        details={"levels": [_details(level) for level in levels]},
    )


def _groups(found: TunnelResult) -> list[Group]:
    groups = [
        group(f"Relay, {level.load}", _level(level, place), sides=SIDES)
        for place, levels in (("relay", found.relay), ("latency", found.latency))
        for level in levels
    ]
    if found.carried is not None:
        groups.append(group("One tunnel by itself", _carried(found.carried.chunks, found.carried.bodies)))
    groups += [group(f"{idle.count} idle sessions", _idle(idle)) for idle in found.idle]
    groups += [group(_storm_title(storm), _storm(storm)) for storm in found.storms]
    return groups


def _details(level: RelayLevel) -> dict[str, object]:
    sides = {"direct": (level.direct_delay, level.direct_ttft), "via": (level.via_delay, level.via_ttft)}
    told: dict[str, object] = {
        side: {
            "chunk_ms": serving_report.milliseconds(delay),
            "ttft_ms": serving_report.milliseconds(ttft),
        }
        for side, (delay, ttft) in sides.items()
    }
    return told | {
        "load": _key(level.load),
        "rounds": level.rounds,
        "spoiled_rounds": level.spoiled_rounds,
        "errors": level.errors,
    }


def _remarks(level: RelayLevel) -> list[Remark]:
    told = [
        Remark(code="errors", text=f"{count} x {kind} at {level.load}")
        for kind, count in level.errors.items()
    ]
    if level.spoiled_rounds:
        text = f"{level.spoiled_rounds} rounds at {level.load} had failures and are left out."
        told.append(Remark(code="rounds_spoiled", text=text))
    if level.generator.at_its_limit:
        told.append(serving_report.limit_remark(level.generator))
    return told


def _level(level: RelayLevel, place: str) -> list[Figure]:
    at = f"{place}/{_key(level.load)}"
    figures = [
        Figure(
            key=f"{at}/chunks_per_s",
            name="chunks/s",
            unit="",
            found=level.chunks_per_s,
            which_is_better=Better.MORE,
            direct=f"{level.direct_chunks_per_s.median:.0f}" if level.direct_chunks_per_s else "-",
        )
    ]
    figures += _delays(level, at)
    figures += [
        Figure(key=f"{at}/{name}_cpu_s_per_100k", name=f"CPU of {name}, 100k chunks", unit="s", found=spent)
        for name, spent in level.cpu_per_100k_s.items()
    ]
    return figures


def _delays(level: RelayLevel, at: str) -> list[Figure]:
    direct, via = level.direct_delay, level.via_delay
    rows = (
        ("added_chunk_p50_ms", "chunk's way p50", _at(direct, 50), _at(via, 50), level.added_delay_p50_s),
        ("added_chunk_p99_ms", "chunk's way p99", _at(direct, 99), _at(via, 99), level.added_delay_p99_s),
        (
            "added_ttft_p50_ms",
            "TTFT p50",
            _at(level.direct_ttft, 50),
            _at(level.via_ttft, 50),
            level.added_ttft_p50_s,
        ),
    )
    return [
        Figure(
            key=f"{at}/{key}",
            name=f"{name}, added",
            unit="ms",
            found=scaled(added, 1000),
            direct=alone,
            via=behind,
        )
        for key, name, alone, behind, added in rows
    ]


def _at(summary: Summary | None, percent: int) -> str:
    if summary is None:
        return "-"
    return f"{(summary.p50 if percent == 50 else summary.p99) * 1000:.2f}"


def _key(load: StreamLoad) -> str:
    return f"{load.streams}x{load.interval_ms}ms"


def _carried(chunks: Sequence[ChunksCarried], bodies: BodiesCarried | None) -> list[Figure]:
    figures = [figure for each in chunks for figure in _chunks(each)]
    if bodies is not None:
        for way, name, seconds in (
            ("to_node", "8 MiB to the node", bodies.to_node_s),
            ("from_node", "8 MiB from the node", bodies.from_node_s),
        ):
            figures.append(
                Figure(
                    key=f"body/{way}_mb_per_s",
                    name=name,
                    unit="MB/s",
                    found=_rate(seconds),
                    which_is_better=Better.MORE,
                )
            )
    return figures


def _rate(seconds: Sequence[float]) -> Interval:
    return bootstrap_median([BODY_BYTES / each / 1e6 for each in seconds], seed=0)


def _chunks(carried: ChunksCarried) -> list[Figure]:
    way, key = ("one way", "one_way") if carried.ways == 1 else ("both ways", "both_ways")
    found = [
        Figure(
            key=f"chunks/{key}_per_s",
            name=f"chunks, {way}",
            unit="/s",
            found=carried.chunks / carried.seconds,
            which_is_better=Better.MORE,
        )
    ]
    for end, spent in (("hub", carried.hub_cpu_s), ("node", carried.node_cpu_s)):
        name = f"CPU of the {end}'s end, 100k chunks {way}"
        per = spent / carried.chunks * _PER
        found.append(Figure(key=f"chunks/{key}_{end}_cpu_s_per_100k", name=name, unit="s", found=per))
    return found


def _idle(idle: IdleSessions) -> list[Figure]:
    at = f"sessions/{idle.count}"
    return [
        Figure(key=f"{at}/kib_each", name="memory of each", unit="KiB", found=idle.each / _KIB),
        Figure(key=f"{at}/process_mib", name="memory of the process", unit="MiB", found=idle.memory / _MIB),
        Figure(
            key=f"{at}/process_mib_without",
            name="memory of it without any",
            unit="MiB",
            found=idle.before / _MIB,
        ),
    ]


def _storm_title(storm: Storm) -> str:
    return f"{storm.nodes} nodes come back after the Hub's loss, {storm.handshakes_per_s:g} let in a second"


def _storm(storm: Storm) -> list[Figure]:
    at = f"storm/{storm.nodes}@{storm.handshakes_per_s:g}"
    lost = ", ".join(f"{count} {reason}" for reason, count in storm.lost.items())
    rows = (
        ("all_back_s", "all back", "s", storm.seconds),
        ("peak_mib", "peak memory of the process", "MiB", storm.peak_memory / _MIB),
        ("hub_cpu_s", "CPU of the Hub's end", "s", storm.hub_cpu_s),
        ("refused", "dials told to wait", "", float(storm.refused)),
        ("lost", f"handshakes lost{f': {lost}' if lost else ''}", "", float(sum(storm.lost.values()))),
    )
    return [Figure(key=f"{at}/{key}", name=name, unit=unit, found=found) for key, name, unit, found in rows]
