"""``porten-bench tunnel``: its options and help."""

from dataclasses import replace
from typing import Annotated

import typer

from benchmarks.command import terminal
from benchmarks.command.options import Json, Quick, Quiet, Seed
from benchmarks.tunnel import report as tunnel_report
from benchmarks.tunnel.measuring import Part, TunnelPlan, run_tunnel


def tunnel(
    *,
    only: Annotated[
        list[Part] | None, typer.Option(help="Measure this part; may be given more than once. Default: all.")
    ] = None,
    quick: Quick = False,
    rounds: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="Pairs of runs at each load. Default: 5.")
    ] = None,
    seed: Seed = None,
    json_file: Json = None,
    quiet: Quiet = False,
) -> None:
    r"""Measure the tunnel, and what Hub and node cost for each chunk, with no model.

    A scripted engine sends small chunks at a set pace. A real Hub and a node's
    relay stand before it, each a process of its own on this machine, in turns
    with the engine by itself.

    relay     chunks/s, CPU seconds for 100k chunks, what a chunk waits longer
    latency   what is added to the time to the first chunk, at 1 and 16 streams
    chunks    chunks/s of one tunnel by itself, one way and both
    body      bytes a second of a body of 8 MiB, each way
    sessions  memory of an idle session, at 1,000 and 5,000 of them
    storm     5,000 nodes come back after their Hub was killed

    All of it takes about ten minutes, most of them for the storm.

    [bold]Examples[/]

      porten-bench tunnel --quick

      porten-bench tunnel --only relay --only latency --rounds 9 --json tunnel.json
    """
    parts = frozenset(only or Part)
    seed = terminal.fresh_seed() if seed is None else seed
    plan = TunnelPlan.quick(parts, seed) if quick else TunnelPlan(parts=parts, seed=seed)
    plan = replace(plan, rounds=rounds or plan.rounds)
    with terminal.at_work():
        made = terminal.made(quick=quick)
        found = terminal.run(
            lambda stop, progress: run_tunnel(plan, stop=stop, progress=progress), quiet=quiet
        )
        terminal.conclude(tunnel_report.report(found, made), json_file)
