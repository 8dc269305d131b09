"""``porten-bench node`` and ``porten-bench cold-load``: what a node costs on the machine it runs on.

Owns their options and help. The engine's environment and the model must be here already; a daemon is started
for the measurement, apart from the one that the owner may run.
"""

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from benchmarks.cold import report as cold_report
from benchmarks.cold.measuring import ColdPlan, Part, run_cold_load
from benchmarks.command import terminal
from benchmarks.command.options import Json, Quick, Quiet, Seed
from benchmarks.command.settings import parse_counts
from benchmarks.node import report as node_report
from benchmarks.node.measuring import NodePlan, run_node
from benchmarks.stacks.engine_choice import EngineChoice, usual_data_dir
from benchmarks.stacks.stack import ENGINE, MODEL, SharedData

_DataDir = Annotated[
    Path | None,
    typer.Option(
        metavar="DIR",
        help="Data directory with the engines and models. Default: that of this machine's node.",
    ),
]
_Backend = Annotated[str, typer.Option(metavar="NAME", help="The engine, as `porten engines list` names it.")]
_Model = Annotated[str, typer.Option(metavar="ID", help="Model of the catalog, in the engine's format.")]
_Catalog = Annotated[
    list[Path] | None, typer.Option(metavar="FILE", help="Further catalog; may be given more than once.")
]


def node(
    *,
    streams: Annotated[str, typer.Option(metavar="N,N", help="Numbers of streams.")] = "1,8,32",
    threads: Annotated[
        str | None,
        typer.Option(metavar="N,N", help="Threads of the engine. Default: every core, and all but one."),
    ] = None,
    rounds: Annotated[int, typer.Option(metavar="N", min=1, help="Pairs of runs at each.")] = 10,
    pairs: Annotated[int, typer.Option(metavar="N", min=1, help="Requests one by one, for TTFT.")] = 200,
    idle: Annotated[float, typer.Option(metavar="S", min=1, help="Seconds to watch the daemon idle.")] = 60,
    backend: _Backend = ENGINE,
    model: _Model = MODEL,
    catalog: _Catalog = None,
    data_dir: _DataDir = None,
    quick: Quick = False,
    seed: Seed = None,
    json_file: Json = None,
    quiet: Quiet = False,
) -> None:
    r"""Measure a node's own API against its engine's own port, and the idle daemon.

    A daemon and, apart from it, an engine started as the daemon starts its own
    answer the same load in turns, on every core and with one left free.

    tokens/s    ratio, node / engine            >= 0.97, with a core free >= 0.99
    TTFT p50    what the node adds              <= 1 ms
    CPU         of the daemon alone, a token    <= 0.4 ms
    idle        CPU and memory of the daemon    <= 0.5 %, <= 120 MB

    Ratios and differences are medians over rounds with a 95 % bootstrap interval.
    A bound within the interval is "unclear": take more rounds, or a quieter machine.

    [bold]Examples[/]

      porten-bench node --quick

      porten-bench node --rounds 20 --json node.json
    """
    seed = terminal.fresh_seed() if seed is None else seed
    with terminal.at_work():
        plan = NodePlan(
            EngineChoice(_data(data_dir), backend, model, tuple(catalog or ())),
            streams=parse_counts(streams, "--streams"),
            rounds=rounds,
            pairs=pairs,
            idle_s=idle,
            seed=seed,
        )
        if threads is not None:
            plan = replace(plan, threads=parse_counts(threads, "--threads"))
        plan = plan.quick() if quick else plan
        made = terminal.made(quick=quick)
        found = terminal.run(lambda stop, progress: run_node(plan, stop=stop, progress=progress), quiet=quiet)
        terminal.conclude(node_report.report(found, made), json_file)


def cold_load(
    *,
    only: Annotated[
        list[Part] | None, typer.Option(help="Measure this part; may be given more than once. Default: all.")
    ] = None,
    rounds: Annotated[int, typer.Option(metavar="N", min=1, help="Pairs of cold starts.")] = 10,
    swaps: Annotated[int, typer.Option(metavar="N", min=1, help="From one model to the other.")] = 20,
    backend: _Backend = ENGINE,
    model: _Model = MODEL,
    catalog: _Catalog = None,
    data_dir: _DataDir = None,
    quick: Quick = False,
    seed: Seed = None,
    json_file: Json = None,
    quiet: Quiet = False,
) -> None:
    r"""Measure the time to the first token of a model that is not loaded.

    cold  a request to a node that has to load the model, in turns with starting
          the engine by itself and asking it: ratio                       <= 1.15
    swap  two models of which the node's memory holds one; the other is asked
          for. Both are one file under two names, in the page cache        <= 2 s

    Ctrl-C ends it after the start that is under way; a third one at once.

    [bold]Examples[/]

      porten-bench cold-load --quick

    Another engine, with a model of its own format:

      porten-bench cold-load --only cold --rounds 5 --backend vllm \
        --model my-model --catalog my-catalog.toml
    """
    seed = terminal.fresh_seed() if seed is None else seed
    with terminal.at_work():
        plan = ColdPlan(
            EngineChoice(_data(data_dir), backend, model, tuple(catalog or ())),
            parts=frozenset(only or Part),
            rounds=rounds,
            swaps=swaps,
            seed=seed,
        )
        plan = plan.quick() if quick else plan
        made = terminal.made(quick=quick)
        found = terminal.run(
            lambda stop, progress: run_cold_load(plan, stop=stop, progress=progress), quiet=quiet
        )
        terminal.conclude(cold_report.report(found, made), json_file)


def _data(directory: Path | None) -> SharedData:
    return SharedData((directory or usual_data_dir()).expanduser().resolve())
