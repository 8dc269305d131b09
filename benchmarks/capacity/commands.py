"""``porten-bench capacity``: its options and help."""

from pathlib import Path
from typing import Annotated

import typer

from benchmarks.capacity import report as capacity_report
from benchmarks.capacity.planning import Demand, objectives, plan_capacity
from benchmarks.capacity.points import flaws, read_points
from benchmarks.command import terminal
from benchmarks.command.options import Json
from benchmarks.command.outputs import check_apart
from benchmarks.figures.goodput import parse_slos
from benchmarks.reports import result


def capacity(
    results: Annotated[
        list[Path], typer.Argument(metavar="RESULT.json...", help="Of `porten-bench serving`, one node.")
    ],
    *,
    rate: Annotated[
        float, typer.Option(metavar="R", min=0.001, max=1e9, help="Requests a second, of all together.")
    ],
    prompt_tokens: Annotated[
        float | None, typer.Option(metavar="N", min=1, help="Of a prompt, on average. Default: as measured.")
    ] = None,
    output_tokens: Annotated[
        float | None, typer.Option(metavar="N", min=1, help="Of an answer, on average. Default: as measured.")
    ] = None,
    slo: Annotated[
        list[str] | None,
        typer.Option(metavar="LATENCY=TIME", help="ttft, itl, tpot or e2el: ttft=500ms,itl=50ms."),
    ] = None,
    percentile: Annotated[
        float, typer.Option(metavar="P", min=1, max=99.9, help="Requests of a hundred that keep each --slo.")
    ] = 99.0,
    margin: Annotated[
        float, typer.Option(metavar="X", min=0, max=0.9, help="Share of each node's load that is kept free.")
    ] = 0.2,
    extrapolate: Annotated[
        bool, typer.Option("--extrapolate", help="Guess at lengths that were not measured, by tokens.")
    ] = False,
    json_file: Json = None,
) -> None:
    r"""Say how many nodes like the measured one a demand takes.

    Reads what `porten-bench serving` wrote of ONE node: a ramp, or several loads.
    From them it makes a queue whose speed depends on how many requests are in it,
    tells each measured load by the others (that is the model's error), and looks
    for the largest load at which every --slo is kept. Nothing beyond what was
    measured is counted on; where something is guessed at, it says so.

    [bold]Examples[/]

      porten-bench serving --base-url http://127.0.0.1:8420/v1 --model smollm2-135m-instruct \
        --ramp 1,2,4,8,16,32 --duration 60 --json node.json

      porten-bench capacity node.json --rate 20 --slo ttft=1s,itl=80ms
    """
    with terminal.at_work():
        made = terminal.made()
        for path in results:
            check_apart(path, json_file)
        read = [(path.name, result.read(path)) for path in results]
        points = tuple(read_points([each for _, each in read]))
        wanted = objectives(parse_slos(slo or ()))
        demand = Demand(rate, wanted, percentile / 100, prompt_tokens, output_tokens)
        found = plan_capacity(points, demand, margin=margin, extrapolate=extrapolate)
        told = capacity_report.report(found, demand, margin, made, flaws=tuple(flaws(read)))
        terminal.conclude(told, json_file)
