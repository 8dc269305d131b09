"""The result of `porten-bench routing` for people and for programs (schema ``porten.bench.routing/1``).

Owns the bounds that a decision is to keep, its tables and its document. Decisions are told in microseconds of
processor time, what is simulated in milliseconds of the simulation's own clock.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Final

from rich.console import Console
from rich.table import Table

from benchmarks import figures, report
from benchmarks.bounds import RATIO, Bound, Figure
from benchmarks.routing import RoutingResult
from benchmarks.routing_decision import DecisionCase, FleetSize, Times
from benchmarks.routing_rules import RuleName
from benchmarks.routing_simulation import GOOD_TTFT_S, Outcome
from benchmarks.statistics import Interval, bootstrap_median, median

ROUTING_SCHEMA: Final = "porten.bench.routing/1"
DECISION_P99_US: Final = Bound(100.0)
FORBIDDEN_RATIO: Final = Bound(1.25)
"""What a decision may take longer for all the nodes that the key may not use: nothing, and some noise."""

_WORSE_IS_MORE: Final = {"TTFT p50", "TTFT p99"}


def document(
    result: RoutingResult, *, command: Sequence[str], environment: Mapping[str, object]
) -> report.Document:
    """The result for a JSON file."""
    plan, simulation = result.plan, result.plan.simulation
    return report.envelope(ROUTING_SCHEMA, command, environment) | {
        "parts": sorted(plan.parts),
        "seed": plan.seed,
        "interrupted": result.interrupted,
        "decision": {
            "models": plan.decision.models,
            "decisions": plan.decision.decisions,
            "rounds": plan.decision.rounds,
            "fleets": [_case_document(case) for case in result.cases],
            "figures": figures.document(decision_figures(result)),
        },
        "simulation": {
            "nodes": simulation.nodes,
            "models": simulation.models,
            "hubs": simulation.hubs,
            "seconds": simulation.seconds,
            "utilisation": simulation.utilisation,
            "good_ttft_ms": GOOD_TTFT_S * 1000,
            "traces": [
                {rule.value: _outcome_document(outcome) for rule, outcome in outcomes.items()}
                for outcomes in result.traces
            ],
        },
    }


def _case_document(case: DecisionCase) -> report.Document:
    kinds = {"hot": case.hot, "mixed": case.mixed, "place": case.places}
    return {"permitted": case.size.permitted, "forbidden": case.size.forbidden} | {
        name: {"p50_us": [each.p50 for each in times], "p99_us": [each.p99 for each in times]}
        for name, times in kinds.items()
    }


def _outcome_document(outcome: Outcome) -> report.Document:
    return {
        "requests": outcome.requests,
        "ttft_ms": report.milliseconds(outcome.ttft),
        "goodput_per_s": outcome.goodput,
        "cached_share": outcome.cached,
    }


def show(console: Console, result: RoutingResult) -> None:
    """Show the result as a page."""
    if result.cases:
        console.print(_decision_table(result))
        figures.show(console, "Against their bounds", decision_figures(result), sides=())
    if result.traces:
        console.print(_simulation_table(result))
    if result.interrupted:
        console.print("[yellow]Interrupted: this is what was complete by then.[/]")


# --- decisions


def decision_figures(result: RoutingResult) -> list[Figure]:
    """What is to be kept: the time of a decision on each fleet, and that forbidden nodes cost nothing."""
    found = [
        Figure(f"p99, {_size(case.size)}", "us", _over_rounds(case.hot, _p99), DECISION_P99_US)
        for case in result.cases
    ]
    alike = [case for case in result.cases if case.size.permitted == result.cases[0].size.permitted]
    if len(alike) > 1:
        few, many = alike[0], alike[-1]
        pairs = zip(many.hot, few.hot, strict=True)
        ratio = bootstrap_median([after.p50 / before.p50 for after, before in pairs], seed=0)
        found.append(Figure(f"p50, {_size(many.size)} / none", RATIO, ratio, FORBIDDEN_RATIO))
    return found


def _over_rounds(times: Sequence[Times], of: Callable[[Times], float]) -> Interval:
    return bootstrap_median([of(each) for each in times], seed=0)


def _median(times: Sequence[Times], of: Callable[[Times], float]) -> float:
    return median([of(each) for each in times])


def _p99(times: Times) -> float:
    return times.p99


def _size(size: FleetSize) -> str:
    others = f", {size.forbidden:,} forbidden" if size.forbidden else ""
    return f"{size.permitted:,} nodes{others}"


def _decision_table(result: RoutingResult) -> Table:
    plan = result.plan.decision
    table = Table(title=f"A decision, µs; {plan.models} models on each node", title_justify="left")
    table.add_column("nodes permitted", justify="right")
    table.add_column("forbidden", justify="right")
    for kind in ("hot model", "all models", "taking a place"):
        table.add_column(f"{kind}, p50", justify="right")
        table.add_column("p99", justify="right")
    for case in result.cases:
        cells = [f"{case.size.permitted:,}", f"{case.size.forbidden:,}"]
        for times in (case.hot, case.mixed, case.places):
            cells += [f"{_median(times, lambda each: each.p50):.1f}", f"{_median(times, _p99):.1f}"]
        table.add_row(*cells)
    return table


# --- simulations


def _simulation_table(result: RoutingResult) -> Table:
    plan = result.plan.simulation
    title = f"{plan.nodes:,} nodes, {plan.models} models, {_hubs(plan.hubs)}"
    table = Table(title=f"{title}; medians of {len(result.traces)} traces", title_justify="left")
    table.add_column("rule")
    rows: Mapping[str, Callable[[Outcome], float]] = {
        "TTFT p50": lambda outcome: outcome.ttft.p50 * 1000,
        "TTFT p99": lambda outcome: outcome.ttft.p99 * 1000,
        f"within {GOOD_TTFT_S:g} s, per s": lambda outcome: outcome.goodput,
        "cached, %": lambda outcome: outcome.cached * 100,
    }
    for name in rows:
        table.add_column(f"{name}, ms" if name in _WORSE_IS_MORE else name, justify="right")
    for rule in RuleName:
        table.add_row(
            rule.value,
            *(f"{median([of(outcomes[rule]) for outcomes in result.traces]):.1f}" for of in rows.values()),
        )
    return table


def _hubs(count: int) -> str:
    return "1 Hub" if count == 1 else f"{count} Hubs"
