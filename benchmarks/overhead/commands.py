"""``porten-bench overhead``: its options and help."""

import os
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from benchmarks.command import terminal
from benchmarks.command.options import (
    APIS,
    KEY_VARIABLE,
    URL_FORM,
    ApiChoice,
    CaFile,
    IgnoreEos,
    Json,
    KeyFile,
    Model,
    OutputTokens,
    PromptTokens,
    Quiet,
    Seed,
    SharedPrefix,
    Timeout,
)
from benchmarks.command.settings import parse_counts, parse_tree, parse_workload, read_key
from benchmarks.generator.target import Target
from benchmarks.overhead import report as overhead_report
from benchmarks.overhead.comparing import ComparePlan, compare, streams
from benchmarks.overhead.turns import Side

_DirectKeyFile = Annotated[Path | None, typer.Option(metavar="FILE", help="Holds the key for --direct.")]


def overhead(
    *,
    direct: Annotated[str, typer.Option(metavar="URL", help=f"The engine itself, {URL_FORM}")],
    via: Annotated[str, typer.Option(metavar="URL", help="What stands before it.")],
    model: Model,
    direct_model: Annotated[str | None, typer.Option(metavar="NAME", help="Its name at --direct.")] = None,
    concurrency: Annotated[str, typer.Option(metavar="N,N", help="Numbers of streams.")] = "1,8",
    rounds: Annotated[int, typer.Option(metavar="N", min=1, help="Pairs of runs at each.")] = 10,
    requests: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="A run. Default: 2 a stream.")
    ] = None,
    cpu_pid: Annotated[list[str] | None, typer.Option(metavar="NAME=PID", help="A tree to watch.")] = None,
    cpu_exclude: Annotated[
        list[str] | None, typer.Option(metavar="TEXT", help="Leave out processes with it in their command.")
    ] = None,
    prompt_tokens: PromptTokens = "128",
    output_tokens: OutputTokens = "64",
    shared_prefix: SharedPrefix = 0,
    endpoint: ApiChoice = "chat",
    ignore_eos: IgnoreEos = True,
    api_key_file: KeyFile = None,
    direct_api_key_file: _DirectKeyFile = None,
    ca_file: CaFile = None,
    timeout: Timeout = 600.0,
    seed: Seed = None,
    json_file: Json = None,
    quiet: Quiet = False,
) -> None:
    r"""Run the same load on two endpoints in turns: what does the longer way cost?

    Prints medians over rounds, with a 95 % bootstrap interval, of tokens/s and
    E2EL as ratios and of TTFT as a difference; and the CPU time of given process
    trees for each output token. For LENGTH see: porten-bench serving --help

    [bold]Example[/]

    A Hub and a node before an engine, which is the node's child and not counted:

      porten-bench overhead --direct http://127.0.0.1:41000/v1 \
        --via http://127.0.0.1:8420/v1 --model smollm2 --concurrency 1,8 \
        --cpu-pid hub=4711 --cpu-pid node=4712 --cpu-exclude xllamacpp \
        --json overhead.json
    """
    seed = terminal.fresh_seed() if seed is None else seed
    with terminal.one_line_errors():
        target = Target(
            base_url=via,
            model=model,
            api=APIS[endpoint],
            api_key=read_key(api_key_file, os.environ.get(KEY_VARIABLE)),
            ignore_eos=ignore_eos,
            timeout_s=timeout,
            ca_file=ca_file,
        )
        engine = replace(
            target,
            base_url=direct,
            model=direct_model or model,
            api_key=read_key(direct_api_key_file, None),  # the Hub's key is not for the engine to see
        )
        workload = parse_workload(prompt_tokens, output_tokens, shared_prefix, seed)
        loads = [streams(workload, count, requests=requests) for count in parse_counts(concurrency)]
        plan = ComparePlan(tuple(loads), rounds, seed)
        trees = tuple(parse_tree(text, tuple(cpu_exclude or ())) for text in cpu_pid or ())
        sides = Side("direct", engine), Side("via", target, trees)
        made = terminal.made()
        found = terminal.run(
            lambda stop, progress: compare(sides, plan, stop=stop, progress=progress), quiet=quiet
        )
        terminal.conclude(overhead_report.report(found, made), json_file)
    if not all(level.via.throughput_ratio for level in found.levels):
        raise typer.Exit(1)
