"""``porten-bench calibrate``: its options and help."""

from dataclasses import replace
from typing import Annotated

import typer

from benchmarks.calibration import report as calibration_report
from benchmarks.calibration.measuring import CalibrationPlan, run_calibration
from benchmarks.command import terminal
from benchmarks.command.options import Json, Quick, Quiet, Seed


def calibrate(
    *,
    rounds: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="Rounds of the generator's limits.")
    ] = None,
    quick: Quick = False,
    seed: Seed = None,
    json_file: Json = None,
    quiet: Quiet = False,
) -> None:
    r"""Measure the meter: what it reports against what an engine really did.

    No model is needed: a scripted engine sends its chunks by a known schedule
    (fixed, jittered, with stalls) and keeps its own record of when it sent each.
    Told is by how much TTFT, ITL, TPOT and E2EL (mean, p50, p99) are off, which
    is to be 2 % or 1 ms at most; and what one generator process drives:

    requests/s  of one chunk each                   >= 1,500
    chunks/s    each arriving by itself             >= 30,000

    Run it on the machine that will measure, with nothing else on it.

    [bold]Examples[/]

      porten-bench calibrate --quick

      porten-bench calibrate --json calibration.json
    """
    usual = CalibrationPlan(seed=terminal.fresh_seed() if seed is None else seed)
    plan = usual.quick() if quick else usual
    plan = replace(plan, rounds=rounds or plan.rounds)
    with terminal.at_work():
        made = terminal.made(quick=quick)
        found = terminal.run(
            lambda stop, progress: run_calibration(plan, stop=stop, progress=progress), quiet=quiet
        )
        terminal.conclude(calibration_report.report(found, made), json_file)
