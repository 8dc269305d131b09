"""``porten-bench serving``: its options and help."""

import os
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
    MaxErrors,
    Model,
    OutputTokens,
    Percentiles,
    PromptTokens,
    Quiet,
    Seed,
    SharedPrefix,
    Slos,
    Steady,
    Timeout,
)
from benchmarks.command.settings import (
    parse_limit,
    parse_load,
    parse_rules,
    parse_warmup,
    parse_workload,
    read_key,
)
from benchmarks.generator.load import Arrivals
from benchmarks.generator.target import Target
from benchmarks.serving import report as serving_report
from benchmarks.serving import samples as samples_file
from benchmarks.serving.measuring import ServingPlan, run_serving


def serving(
    *,
    base_url: Annotated[str, typer.Option(metavar="URL", help=URL_FORM)],
    model: Model,
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
    prompt_tokens: PromptTokens = "128",
    output_tokens: OutputTokens = "64",
    shared_prefix: SharedPrefix = 0,
    endpoint: ApiChoice = "chat",
    stream: Annotated[bool, typer.Option(help="Ask for the answer as a stream.")] = True,
    ignore_eos: IgnoreEos = True,
    slo: Slos = None,
    max_errors: MaxErrors = "1%",
    steady: Steady = "auto",
    percentile: Percentiles = None,
    samples: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write each request with the time of every token.")
    ] = None,
    api_key_file: KeyFile = None,
    ca_file: CaFile = None,
    timeout: Timeout = 600.0,
    seed: Seed = None,
    json_file: Json = None,
    quiet: Quiet = False,
) -> None:
    r"""Drive one endpoint and tell TTFT, ITL, TPOT, E2EL, tokens/s and errors.

    With --concurrency each answer is followed by the next request. With --rate
    requests come when they are due, however slow the answers are, and latency
    counts from that moment. Figures are defined as in vLLM's "bench serve".
    Ctrl-C stops and keeps what was measured.

    Figures are of the steady part of the run, if one is found, with intervals of
    95 %. A result that is not to be believed (the generator was too slow, the
    clock jumped, too many requests failed, the endpoint's counts cannot be) ends
    with exit code 3 and says why.

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

    How many requests a second meet what users expect, with every token's time:

      porten-bench serving --base-url http://127.0.0.1:8080/v1 --model smollm2 \
        --rate 4 --duration 300 --slo ttft=500ms --slo itl:p95=50ms \
        --samples samples.jsonl
    """
    seed = terminal.fresh_seed() if seed is None else seed
    with terminal.one_line_errors():
        plan = ServingPlan(
            target=Target(
                base_url=base_url,
                model=model,
                api=APIS[endpoint],
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
            rules=parse_rules(
                slo or (), max_errors=max_errors, steady=steady == "auto", percentiles=percentile or ()
            ),
        )
        made = terminal.made()
        if samples is not None:
            samples_file.write(samples, ())  # a measurement must not fail at its end for a folder not there
        found = terminal.run(
            lambda stop, progress: run_serving(plan, stop=stop, progress=progress), quiet=quiet
        )
        if samples is not None:
            samples_file.write(samples, serving_report.sample_lines(found, made))
        terminal.conclude(serving_report.report(found, made), json_file)
    if not found.metrics.completed:
        raise typer.Exit(1)


def figures(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="What --samples wrote.")],
    *,
    slo: Slos = None,
    max_errors: MaxErrors = "1%",
    steady: Steady = "auto",
    percentile: Percentiles = None,
    json_file: Json = None,
) -> None:
    r"""Take the figures of a run again, from the file that serving --samples wrote.

    With other objectives, other percentiles, or of the whole run. The result is
    that of the run itself: compare takes it like any other.

    [bold]Examples[/]

      porten-bench figures samples.jsonl --slo ttft=300ms --slo tpot=25ms

      porten-bench figures samples.jsonl --steady off --json whole.json
    """
    with terminal.one_line_errors():
        rules = parse_rules(
            slo or (), max_errors=max_errors, steady=steady == "auto", percentiles=percentile or ()
        )
        header, run = samples_file.read(file)
        terminal.conclude(serving_report.again(header, run, rules, terminal.made()), json_file)
