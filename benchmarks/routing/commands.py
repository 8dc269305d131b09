"""``porten-bench routing``: how long a choice of a node takes, and what comes of it.

Owns its options and help.
"""

from dataclasses import replace
from typing import Annotated

import typer

from benchmarks.command import terminal
from benchmarks.command.options import Json, Quick, Quiet
from benchmarks.routing import report as routing_report
from benchmarks.routing.measuring import Part, RoutingPlan, run_routing

_USUAL_SEED = 1


def routing(
    *,
    only: Annotated[
        list[Part] | None, typer.Option(help="Measure this part; may be given more than once. Default: all.")
    ] = None,
    nodes: Annotated[int | None, typer.Option(metavar="N", min=2, help="Nodes that are simulated.")] = None,
    models: Annotated[int | None, typer.Option(metavar="N", min=1, help="Models on them.")] = None,
    hubs: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="Hubs that share the nodes, blind to each other.")
    ] = None,
    utilisation: Annotated[
        float | None, typer.Option(metavar="X", min=0.01, max=2, help="Share of slots in use, on average.")
    ] = None,
    traces: Annotated[int | None, typer.Option(metavar="N", min=1, help="Traces that are simulated.")] = None,
    quick: Quick = False,
    seed: Annotated[
        int, typer.Option(metavar="N", help="Same seed: same fleets and traces, and the same simulation.")
    ] = _USUAL_SEED,
    json_file: Json = None,
    quiet: Quiet = False,
) -> None:
    r"""Measure the Hub's choice of a node, and simulate what comes of it.

    decision    processor time of policy and choice together, with 100 to 10,000
                nodes of 200 models, and with up to 9,900 more that the key may
                not use                                          p99 <= 100 us
    simulation  conversations on two thousand nodes, chosen by the Hub's own code
                and by simpler rules: TTFT, goodput, cached prompt tokens

    A simulation gives the same figures on every machine. Decisions are best timed
    on a machine that does nothing else. All of it takes some minutes.

    [bold]Examples[/]

      porten-bench routing --quick

      porten-bench routing --only decision --json decision.json

      porten-bench routing --only simulation --hubs 3 --utilisation 0.8
    """
    parts = frozenset(only or Part)
    plan = RoutingPlan.quick(parts, seed) if quick else RoutingPlan(parts=parts, seed=seed)
    usual = plan.simulation
    simulation = replace(
        usual,
        nodes=nodes or usual.nodes,
        models=models or usual.models,
        hubs=hubs or usual.hubs,
        utilisation=utilisation or usual.utilisation,
    )
    plan = replace(plan, traces=traces or plan.traces, simulation=simulation)
    with terminal.one_line_errors():
        made = terminal.made(quick=quick)
        found = terminal.run(
            lambda stop, progress: run_routing(plan, stop=stop, progress=progress), quiet=quiet
        )
        terminal.conclude(routing_report.report(found, made), json_file)
