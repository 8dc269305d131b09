"""``porten-bench routing``: its options and help."""

from dataclasses import replace
from typing import Annotated

import typer

from benchmarks.command import terminal
from benchmarks.command.options import Json, Quick, Quiet
from benchmarks.routing import report as routing_report
from benchmarks.routing.measuring import RoutingPlan, run_routing

_USUAL_SEED = 1


def routing(
    *,
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
    r"""Simulate what comes of the Hub's choice of nodes, and of simpler rules.

    Conversations on two thousand nodes, sent where the Hub's own code says and
    where round-robin, least load and power of two do: TTFT, goodput, cached prompt
    tokens. It gives the same figures on every machine. How long a choice takes is
    measured by: porten-bench policy

    All of it takes some minutes.

    [bold]Examples[/]

      porten-bench routing --quick

      porten-bench routing --hubs 3 --utilisation 0.8 --json routing.json
    """
    plan = RoutingPlan.quick(seed) if quick else RoutingPlan(seed=seed)
    usual = plan.simulation
    simulation = replace(
        usual,
        nodes=nodes or usual.nodes,
        models=models or usual.models,
        hubs=hubs or usual.hubs,
        utilisation=utilisation or usual.utilisation,
    )
    plan = replace(plan, traces=traces or plan.traces, simulation=simulation)
    with terminal.at_work():
        made = terminal.made(quick=quick)
        found = terminal.run(
            lambda stop, progress: run_routing(plan, stop=stop, progress=progress), quiet=quiet
        )
        terminal.conclude(routing_report.report(found, made), json_file)
