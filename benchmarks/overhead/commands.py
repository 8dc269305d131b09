"""``porten-bench overhead``: its options and help.

Two forms: of two endpoints that run already, and with everything started here.
"""

import os
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Final

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
    OutputTokens,
    PromptTokens,
    Quick,
    Quiet,
    Seed,
    SharedPrefix,
    Timeout,
)
from benchmarks.command.settings import parse_counts, parse_tree, parse_workload, read_key
from benchmarks.errors import SettingInvalid
from benchmarks.generator.target import Target
from benchmarks.generator.workloads import Workload
from benchmarks.overhead import report as overhead_report
from benchmarks.overhead.comparing import ComparePlan, Level, compare, streams
from benchmarks.overhead.measuring import OverheadPlan, RealLoads, ScriptedLoads, run_overhead
from benchmarks.overhead.peers import Peer, choose_peers, peers_cache
from benchmarks.overhead.recipes import LiteLLM, known_peers
from benchmarks.overhead.turns import Side
from benchmarks.stacks.engine_choice import EngineChoice, usual_data_dir
from benchmarks.stacks.stack import MODEL, SharedData

_SCRIPTED: Final = "scripted"

_DirectKeyFile = Annotated[Path | None, typer.Option(metavar="FILE", help="Holds the key for --direct.")]


def overhead(
    *,
    direct: Annotated[
        str | None, typer.Option(metavar="URL", help=f"The engine itself, {URL_FORM}; with --via.")
    ] = None,
    via: Annotated[str | None, typer.Option(metavar="URL", help="What stands before it.")] = None,
    model: Annotated[str | None, typer.Option(metavar="NAME", help="Model to ask for.")] = None,
    direct_model: Annotated[str | None, typer.Option(metavar="NAME", help="Its name at --direct.")] = None,
    engine: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Start this engine: scripted (no model), llama_cpp, vllm."),
    ] = None,
    peers: Annotated[
        str | None, typer.Option(metavar="NAME,NAME", help="all, none, or of: nginx, ssh-R, litellm.")
    ] = None,
    install_peers: Annotated[
        bool, typer.Option("--install-peers", help="First install LiteLLM from PyPI, apart from Porten.")
    ] = False,
    data_dir: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Holds engines and models. Default: this node's.")
    ] = None,
    concurrency: Annotated[str, typer.Option(metavar="N,N", help="Numbers of streams.")] = "1,8",
    rounds: Annotated[int, typer.Option(metavar="N", min=1, help="Turns of each side at each load.")] = 10,
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
    quick: Quick = False,
    seed: Seed = None,
    json_file: Json = None,
    quiet: Quiet = False,
) -> None:
    r"""Run the same load on several ways to one engine in turns: what does each cost?

    Without URLs it starts everything itself: an engine, a node, a Hub with its
    tunnel, and what else is here of nginx, ssh -R and LiteLLM. With --direct and
    --via it compares two endpoints that run already.

    Prints medians over rounds, with a 95 % bootstrap interval: tokens/s, TPOT and
    E2EL as ratios to the first side, TTFT as a difference, and CPU seconds of each
    program for 1,000 requests or 100,000 chunks. For LENGTH see: porten-bench
    serving --help

    [bold]Examples[/]

    Everything, with an engine that needs no model; four minutes:

      porten-bench overhead --json overhead.json

    The same with a real one:

      porten-bench overhead --engine llama_cpp --peers nginx --concurrency 1,8

    A Hub and a node before an engine, which is the node's child and not counted:

      porten-bench overhead --direct http://127.0.0.1:41000/v1 \
        --via http://127.0.0.1:8420/v1 --model smollm2 --concurrency 1,8 \
        --cpu-pid hub=4711 --cpu-pid node=4712 --cpu-exclude xllamacpp \
        --json overhead.json
    """
    seed = terminal.fresh_seed() if seed is None else seed
    with terminal.at_work():
        workload = parse_workload(prompt_tokens, output_tokens, shared_prefix, seed)
        counts = parse_counts(concurrency)
        if direct is None and via is None:
            if cpu_pid or direct_model or direct_api_key_file or api_key_file:
                raise SettingInvalid("--cpu-pid, --direct-model and key files belong to --direct and --via")
            asked = _asked(engine or _SCRIPTED, model, data_dir, counts, workload)
            chosen = choose_peers(peers or "all", _known(install=install_peers))
            plan = OverheadPlan(asked, chosen, rounds, seed)
            levels = _started(plan.quick() if quick else plan, json_file, quick=quick, quiet=quiet)
        else:
            if direct is None or via is None or model is None:
                raise SettingInvalid("give --direct, --via and --model, or none of the URLs")
            if engine or peers or install_peers or data_dir or quick:
                raise SettingInvalid(
                    "--engine, --peers, --install-peers, --data-dir and --quick are of the form without URLs"
                )
            target = Target(
                base_url=via,
                model=model,
                api=APIS[endpoint],
                api_key=read_key(api_key_file, os.environ.get(KEY_VARIABLE)),
                ignore_eos=ignore_eos,
                timeout_s=timeout,
                ca_file=ca_file,
            )
            alone = replace(
                target,
                base_url=direct,
                model=direct_model or model,
                api_key=read_key(direct_api_key_file, None),  # the Hub's key is not for the engine to see
            )
            trees = tuple(parse_tree(text, tuple(cpu_exclude or ())) for text in cpu_pid or ())
            loads = tuple(streams(workload, count, requests=requests) for count in counts)
            sides = Side("direct", alone), Side("via", target, trees)
            levels = _given(sides, ComparePlan(loads, rounds, seed), json_file, quiet=quiet)
    if not all(any(side.throughput_ratio for side in level.others) for level in levels):
        raise typer.Exit(1)


def _given(
    sides: tuple[Side, ...], plan: ComparePlan, json_file: str | None, *, quiet: bool
) -> tuple[Level, ...]:
    """Two endpoints that run already."""
    made = terminal.made()
    found = terminal.run(
        lambda stop, progress: compare(sides, plan, stop=stop, progress=progress), quiet=quiet
    )
    terminal.conclude(overhead_report.report(found, made), json_file)
    return found.levels


def _started(plan: OverheadPlan, json_file: str | None, *, quick: bool, quiet: bool) -> tuple[Level, ...]:
    """Everything started here."""
    made = terminal.made(quick=quick)
    found = terminal.run(lambda stop, progress: run_overhead(plan, stop=stop, progress=progress), quiet=quiet)
    terminal.conclude(overhead_report.started(found, made), json_file)
    return found.comparison.levels


def _asked(
    engine: str, model: str | None, data_dir: Path | None, counts: tuple[int, ...], workload: Workload
) -> ScriptedLoads | RealLoads:
    if engine == _SCRIPTED:
        if model or data_dir:
            raise SettingInvalid("the scripted engine has no model; choose a real one with --engine")
        return ScriptedLoads()
    data = SharedData((data_dir or usual_data_dir()).expanduser().resolve())
    choice = EngineChoice(data, engine, model or MODEL)
    return RealLoads(choice, counts, workload.prompt_tokens, workload.output_tokens)


def _known(*, install: bool) -> tuple[Peer, ...]:
    known = known_peers(peers_cache())
    for peer in known:
        if install and isinstance(peer, LiteLLM) and peer.missing():
            typer.echo(f"Installing {peer.name} into {peer.environment}: minutes", err=True)
            peer.install()
    return known
