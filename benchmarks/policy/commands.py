"""``porten-bench policy``: its options and help."""

from dataclasses import replace
from typing import Annotated

import typer

from benchmarks.command import terminal
from benchmarks.command.options import Json, Quick, Quiet
from benchmarks.policy import report as policy_report
from benchmarks.policy.decision import DecisionPlan
from benchmarks.policy.measuring import quick_plan, run_policy

_USUAL_SEED = 1


def policy(
    *,
    rounds: Annotated[int | None, typer.Option(metavar="N", min=1, help="On each fleet. Default: 7.")] = None,
    decisions: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="Of each kind in a round. Default: 4000.")
    ] = None,
    quick: Quick = False,
    seed: Annotated[int, typer.Option(metavar="N", help="Same seed: same fleets, same questions.")] = (
        _USUAL_SEED
    ),
    json_file: Json = None,
    quiet: Quiet = False,
) -> None:
    r"""Time one decision of the Hub: which nodes may serve a request, and which one does.

    Processor time of policy and choice together, in the Hub's own registry, with
    100 to 10,000 nodes of 200 models that the key may use, and with up to 9,900
    more that it may not.

    p99      of a decision on each fleet                                <= 100 us
    ratio    of the median with forbidden nodes to that without          <= 1.25

    All of it takes about two minutes and 1 GB of memory. Measure on a machine
    that does nothing else: what a neighbour drives out of the caches shows in p99.

    [bold]Examples[/]

      porten-bench policy --quick

      porten-bench policy --rounds 15 --json policy.json
    """
    plan = quick_plan(seed) if quick else DecisionPlan(seed=seed)
    plan = replace(plan, rounds=rounds or plan.rounds, decisions=decisions or plan.decisions)
    with terminal.at_work():
        made = terminal.made(quick=quick)
        found = terminal.run(
            lambda stop, progress: run_policy(plan, stop=stop, progress=progress), quiet=quiet
        )
        terminal.conclude(policy_report.report(found, made), json_file)
