"""``porten-bench serving``: its options and help."""

import os
from collections.abc import Iterable
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
    Percentiles,
    Quiet,
    Seed,
    Slos,
    Steady,
    Timeout,
)
from benchmarks.command.outputs import check_apart, writable
from benchmarks.command.settings import parse_limit, parse_rules, parse_warmup, read_key
from benchmarks.generator.target import Target
from benchmarks.reports.result import Result
from benchmarks.serving import ramp_report
from benchmarks.serving import report as serving_report
from benchmarks.serving import samples as samples_file
from benchmarks.serving.choosing import Wishes, check_objectives, choose, limit_of
from benchmarks.serving.measuring import ServingPlan, run_serving
from benchmarks.serving.options import (
    ArrivalsChoice,
    Burstiness,
    Concurrency,
    DatasetFile,
    Duration,
    OutputLength,
    Pin,
    PrefixGroups,
    Processes,
    PromptLength,
    RampSteps,
    Rate,
    Requests,
    SharedPrefixLength,
    Speed,
    ThinkTime,
    TraceFile,
    Turns,
    Warmup,
)
from benchmarks.serving.ramp import Ramp, run_ramp


def serving(
    *,
    base_url: Annotated[str, typer.Option(metavar="URL", help=URL_FORM)],
    model: Model,
    concurrency: Concurrency = None,
    rate: Rate = None,
    arrivals: ArrivalsChoice = None,
    burstiness: Burstiness = None,
    trace: TraceFile = None,
    speed: Speed = None,
    ramp: RampSteps = None,
    requests: Requests = None,
    duration: Duration = None,
    warmup: Warmup = "0",
    prompt_tokens: PromptLength = None,
    output_tokens: OutputLength = None,
    shared_prefix: SharedPrefixLength = None,
    prefix_groups: PrefixGroups = None,
    turns: Turns = None,
    think_time: ThinkTime = None,
    dataset: DatasetFile = None,
    processes: Processes = 1,
    pin: Pin = None,
    endpoint: ApiChoice = "chat",
    stream: Annotated[bool, typer.Option(help="Ask for the answer as a stream.")] = True,
    ignore_eos: IgnoreEos = True,
    slo: Slos = None,
    max_errors: MaxErrors = "1%",
    steady: Steady = "auto",
    percentile: Percentiles = None,
    samples: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", callback=writable, help="Write each request with the time of every token."
        ),
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
    counts from that moment. --trace replays when requests really came; --ramp
    raises the load step by step and looks for the knee. Figures are defined as
    in vLLM's "bench serve". Ctrl-C stops and keeps what was measured.

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

    How much it takes: 1, 2, 4, ... streams, 20 seconds each, until it gains no more:

      porten-bench serving --base-url http://127.0.0.1:8080/v1 --model smollm2 \
        --ramp auto --duration 20 --warmup 5s

    Conversations of four turns with pauses, a system prompt for each of ten teams:

      porten-bench serving --base-url http://127.0.0.1:8080/v1 --model smollm2 \
        --rate 0.5 --turns 4 --think-time exponential:5 \
        --prompt-tokens 600 --shared-prefix 500 --prefix-groups 10

    A day's trace in an hour, from two processes:

      porten-bench serving --base-url http://127.0.0.1:8080/v1 --model smollm2 \
        --trace day.csv --speed 24 --processes 2

    How many requests a second meet what users expect, with every token's time:

      porten-bench serving --base-url http://127.0.0.1:8080/v1 --model smollm2 \
        --rate 4 --duration 300 --slo ttft=500ms --slo itl:p95=50ms \
        --samples samples.jsonl
    """
    seed = terminal.fresh_seed() if seed is None else seed
    wishes = Wishes(
        seed=seed,
        concurrency=concurrency,
        rate=rate,
        arrivals=arrivals,
        burstiness=burstiness,
        ramp=ramp,
        trace=trace,
        speed=speed,
        prompt_tokens=prompt_tokens,
        output_tokens=output_tokens,
        shared_prefix=shared_prefix,
        prefix_groups=prefix_groups,
        turns=turns,
        think_time=think_time,
        dataset=dataset,
        samples=samples,
    )
    with terminal.at_work():
        check_apart(json_file, samples, trace, dataset, api_key_file)
        chosen = choose(wishes)
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
            workload=chosen.source,
            load=chosen.load,
            limit=limit_of(wishes, parse_limit(requests, duration), given=bool(requests or duration)),
            warmup=parse_warmup(warmup),
            processes=processes,
            pin=pin,
            rules=parse_rules(
                slo or (), max_errors=max_errors, steady=steady == "auto", percentiles=percentile or ()
            ),
        )
        check_objectives(plan.rules.slos, stream=stream)
        result, lines, measured = _measure(plan, chosen.ramp, quiet=quiet)
        try:
            terminal.conclude(result, json_file)
        finally:  # whichever of the two cannot be written, the other is
            if samples is not None:
                samples_file.write(samples, lines)
    if not measured:
        raise typer.Exit(1)


def _measure(plan: ServingPlan, ramp: Ramp | None, *, quiet: bool) -> tuple[Result, Iterable[bytes], bool]:
    """The result, the lines of its samples, and whether anything was answered."""
    made = terminal.made()
    if ramp is not None:
        climbed = terminal.run(
            lambda stop, progress: run_ramp(plan, ramp, stop=stop, progress=progress), quiet=quiet
        )
        answered = any(step.found.metrics.completed for step in climbed.steps)
        return ramp_report.report(climbed, made), (), answered
    found = terminal.run(lambda stop, progress: run_serving(plan, stop=stop, progress=progress), quiet=quiet)
    lines = serving_report.sample_lines(found, made)
    return serving_report.report(found, made), lines, bool(found.metrics.completed)


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
    with terminal.at_work():
        rules = parse_rules(
            slo or (), max_errors=max_errors, steady=steady == "auto", percentiles=percentile or ()
        )
        check_apart(json_file, file)
        header, run = samples_file.read(file)
        terminal.conclude(serving_report.again(header, run, rules, terminal.made()), json_file)
