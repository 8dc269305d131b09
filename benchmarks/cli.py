"""The command line ``porten-bench``: reads settings, runs a measurement, shows and writes the result.

Exit codes: 0 measured, 1 nothing could be measured, 2 the command makes no sense, 130 stopped by Ctrl-C or
SIGTERM (what was measured by then is shown and written all the same).
"""

import os
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Final, Literal

import typer

from benchmarks import hub_commands, node_commands, report, routing_commands, terminal, tunnel_report
from benchmarks.environment import describe_environment
from benchmarks.load import Arrivals
from benchmarks.options import Json, Quick, Quiet, Seed
from benchmarks.overhead import ComparePlan, compare
from benchmarks.serving import ServingPlan, run_serving
from benchmarks.settings import (
    parse_counts,
    parse_limit,
    parse_load,
    parse_tree,
    parse_warmup,
    parse_workload,
    read_key,
)
from benchmarks.target import Api, Target
from benchmarks.tunnel import Part, TunnelPlan, run_tunnel
from tunnel.version import __version__

KEY_VARIABLE: Final = "PORTEN_API_KEY"

app = typer.Typer(
    name="porten-bench",
    help="Measure OpenAI-compatible endpoints, and what Porten adds on the way to one.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,  # its tracebacks would show local variables, keys among them
)

Endpoint = Literal["chat", "completions"]
_APIS: Final = {"chat": Api.CHAT, "completions": Api.COMPLETIONS}

_Model = Annotated[str, typer.Option(metavar="NAME", help="Model to ask for.")]
_ApiChoice = Annotated[Endpoint, typer.Option("--endpoint", help="Which API to use.")]
_PromptTokens = Annotated[str, typer.Option(metavar="LENGTH", help="Tokens of the prompts.")]
_OutputTokens = Annotated[str, typer.Option(metavar="LENGTH", help="Tokens of the answers (max_tokens).")]
_SharedPrefix = Annotated[int, typer.Option(metavar="N", min=0, help="Leading tokens all prompts share.")]
_IgnoreEos = Annotated[bool, typer.Option(help="Ask the engine to go on to the full length.")]
_Timeout = Annotated[float, typer.Option(metavar="S", min=0.001, help="Seconds for one request.")]
_CaFile = Annotated[
    Path | None, typer.Option(metavar="FILE", help="Certificates to trust, not the system's.")
]
_KeyFile = Annotated[
    Path | None, typer.Option(metavar="FILE", help=f"Holds the API key. Default: {KEY_VARIABLE}, if set.")
]
_DirectKeyFile = Annotated[Path | None, typer.Option(metavar="FILE", help="Holds the key for --direct.")]
_Url = "http://host:port/v1"


def _say_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"porten-bench {__version__}")
        raise typer.Exit


@app.callback()
def program(
    *,
    _version: Annotated[
        bool,
        typer.Option("--version", callback=_say_version, is_eager=True, help="Print the version."),
    ] = False,
) -> None:
    """Measure OpenAI-compatible endpoints, and what Porten adds on the way to one."""


@app.command(no_args_is_help=True)
def serving(
    *,
    base_url: Annotated[str, typer.Option(metavar="URL", help=_Url)],
    model: _Model,
    concurrency: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="Keep N requests in flight.")
    ] = None,
    rate: Annotated[
        float | None, typer.Option(metavar="N", min=0.001, help="Send N requests a second.")
    ] = None,
    arrivals: Annotated[Arrivals, typer.Option(help="How --rate spreads them.")] = Arrivals.POISSON,
    requests: Annotated[int | None, typer.Option(metavar="N", min=1, help="Stop after N requests.")] = None,
    duration: Annotated[
        float | None, typer.Option(metavar="S", min=0.001, help="Begin for S seconds.")
    ] = None,
    warmup: Annotated[str, typer.Option(metavar="N|Ss", help="Not measured: 10 requests, or 10s.")] = "0",
    prompt_tokens: _PromptTokens = "128",
    output_tokens: _OutputTokens = "64",
    shared_prefix: _SharedPrefix = 0,
    endpoint: _ApiChoice = "chat",
    stream: Annotated[bool, typer.Option(help="Ask for the answer as a stream.")] = True,
    ignore_eos: _IgnoreEos = True,
    api_key_file: _KeyFile = None,
    ca_file: _CaFile = None,
    timeout: _Timeout = 600.0,
    seed: Seed = None,
    json_file: Json = None,
    quiet: Quiet = False,
) -> None:
    r"""Drive one endpoint and tell TTFT, ITL, TPOT, E2EL, tokens/s and errors.

    With --concurrency each answer is followed by the next request. With --rate
    requests come when they are due, however slow the answers are, and latency
    counts from that moment. Figures are defined as in vLLM's "bench serve".
    Ctrl-C stops and keeps what was measured.

    LENGTH is a number of tokens (128) or drawn for each request: uniform:LOW,HIGH
    or normal:MEAN,DEVIATION or lognormal:MEDIAN,SPREAD_PERCENT.

    [bold]Examples[/]

    Eight streams for half a minute against a local engine:

      porten-bench serving --base-url http://127.0.0.1:8080/v1 --model smollm2 \
        --concurrency 8 --duration 30

    Two requests a second as from many people, through a Hub, result as JSON:

      porten-bench serving --base-url https://hub.example/v1 --model smollm2 \
        --api-key-file key.txt --rate 2 --requests 200 --warmup 10s \
        --prompt-tokens lognormal:200,80 --output-tokens uniform:16,128 \
        --json result.json
    """
    seed = terminal.fresh_seed() if seed is None else seed
    with terminal.one_line_errors():
        plan = ServingPlan(
            target=Target(
                base_url=base_url,
                model=model,
                api=_APIS[endpoint],
                api_key=read_key(api_key_file, os.environ.get(KEY_VARIABLE)),
                stream=stream,
                ignore_eos=ignore_eos,
                timeout_s=timeout,
                ca_file=ca_file,
            ),
            workload=parse_workload(prompt_tokens, output_tokens, shared_prefix, seed),
            load=parse_load(concurrency, rate, arrivals, seed),
            limit=parse_limit(requests, duration),
            warmup=parse_warmup(warmup),
        )
        environment = describe_environment()
        result = terminal.run(
            lambda stop, progress: run_serving(plan, stop=stop, progress=progress), quiet=quiet
        )
        document = report.serving_document(result, command=terminal.command(), environment=environment)
        terminal.publish(document, json_file, lambda console: report.print_serving(console, result))
    if result.metrics.interrupted:
        raise typer.Exit(terminal.INTERRUPTED)
    if not result.metrics.completed:
        raise typer.Exit(1)


@app.command(no_args_is_help=True)
def overhead(
    *,
    direct: Annotated[str, typer.Option(metavar="URL", help=f"The engine itself, {_Url}")],
    via: Annotated[str, typer.Option(metavar="URL", help="What stands before it.")],
    model: _Model,
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
    prompt_tokens: _PromptTokens = "128",
    output_tokens: _OutputTokens = "64",
    shared_prefix: _SharedPrefix = 0,
    endpoint: _ApiChoice = "chat",
    ignore_eos: _IgnoreEos = True,
    api_key_file: _KeyFile = None,
    direct_api_key_file: _DirectKeyFile = None,
    ca_file: _CaFile = None,
    timeout: _Timeout = 600.0,
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
            api=_APIS[endpoint],
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
        plan = ComparePlan(
            workload=parse_workload(prompt_tokens, output_tokens, shared_prefix, seed),
            concurrency=parse_counts(concurrency),
            rounds=rounds,
            requests=requests,
        )
        trees = [parse_tree(text, tuple(cpu_exclude or ())) for text in cpu_pid or ()]
        environment = describe_environment()
        result = terminal.run(
            lambda stop, progress: compare(engine, target, plan, trees=trees, stop=stop, progress=progress),
            quiet=quiet,
        )
        document = report.overhead_document(result, command=terminal.command(), environment=environment)
        terminal.publish(document, json_file, lambda console: report.print_comparison(console, result))
    if result.interrupted:
        raise typer.Exit(terminal.INTERRUPTED)
    if not all(level.throughput_ratio for level in result.levels):
        raise typer.Exit(1)


@app.command()
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
    with terminal.one_line_errors():
        environment = describe_environment()
        result = terminal.run(
            lambda stop, progress: run_tunnel(plan, stop=stop, progress=progress), quiet=quiet
        )
        document = tunnel_report.document(result, command=terminal.command(), environment=environment)
        terminal.publish(document, json_file, lambda console: tunnel_report.show(console, result))
    if result.interrupted:
        raise typer.Exit(terminal.INTERRUPTED)


app.command()(node_commands.node)
app.command()(node_commands.cold_load)
app.command()(hub_commands.hub)
app.command()(routing_commands.routing)


@app.command()
def version() -> None:
    """Print the version."""
    _say_version(wanted=True)


def main() -> None:
    """The console script."""
    app()


if __name__ == "__main__":
    main()
