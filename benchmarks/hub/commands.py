"""``porten-bench hub``: what the whole Hub costs with everything on.

Owns its options and help.
"""

from dataclasses import replace
from typing import Annotated

import typer

from benchmarks.command import terminal
from benchmarks.command.options import Json, Quick, Quiet, Seed
from benchmarks.hub import report as hub_report
from benchmarks.hub.measuring import HubPlan, Part, run_hub


def hub(
    *,
    only: Annotated[
        list[Part] | None, typer.Option(help="Measure this part; may be given more than once. Default: all.")
    ] = None,
    rounds: Annotated[int | None, typer.Option(metavar="N", min=1, help="Pairs of runs.")] = None,
    requests: Annotated[int | None, typer.Option(metavar="N", min=1, help="Requests of a run.")] = None,
    nodes: Annotated[int | None, typer.Option(metavar="N", min=1, help="Nodes for the memory.")] = None,
    quick: Quick = False,
    seed: Seed = None,
    json_file: Json = None,
    quiet: Quiet = False,
) -> None:
    r"""Measure what the whole Hub costs with everything on, with no model.

    Hub, a node's relay and a scripted engine, a process each; the key has every
    kind of limit, and each answer its receipt and its usage record.

    requests  CPU of the Hub for 1,000 requests that are not streamed   <= 0.35 s
              requests/s, with node, engine and generator beside it     >= 2,500
    chunks    CPU of the Hub for 100,000 chunks of 256 streams          <= 2.0 s
    memory    of the Hub with 1,000 nodes connected                     <= 250 MB

    [bold]Examples[/]

      porten-bench hub --quick

      porten-bench hub --only requests --rounds 20 --json hub.json
    """
    usual = HubPlan(parts=frozenset(only or Part), seed=terminal.fresh_seed() if seed is None else seed)
    plan = usual.quick() if quick else usual
    plan = replace(
        plan,
        rounds=rounds or plan.rounds,
        requests=requests or plan.requests,
        nodes=nodes or plan.nodes,
    )
    with terminal.at_work():
        made = terminal.made(quick=quick)
        found = terminal.run(lambda stop, progress: run_hub(plan, stop=stop, progress=progress), quiet=quiet)
        terminal.conclude(hub_report.report(found, made), json_file)
