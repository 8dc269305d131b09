"""Options of ``porten-bench serving`` that say what load comes and what is asked, in groups of its help."""

from pathlib import Path
from typing import Annotated, Final

import typer

from benchmarks.generator.loads import Arrivals
from benchmarks.serving.choosing import OUTPUT_TOKENS, PROMPT_TOKENS

LOAD: Final = "Load: when requests come"
REQUESTS: Final = "Requests: what is asked"
GENERATOR: Final = "Generator"

Concurrency = Annotated[
    int | None,
    typer.Option(metavar="N", min=1, rich_help_panel=LOAD, help="Closed loop: keep N requests in flight."),
]
Rate = Annotated[
    float | None,
    typer.Option(
        metavar="N", min=0.001, rich_help_panel=LOAD, help="Open loop: N requests (conversations) a second."
    ),
]
ArrivalsChoice = Annotated[
    Arrivals | None,
    typer.Option(
        rich_help_panel=LOAD, help="How --rate spreads them. Default: poisson, as from many people."
    ),
]
Burstiness = Annotated[
    float | None,
    typer.Option(
        metavar="SHAPE",
        min=0.001,
        rich_help_panel=LOAD,
        help="Gamma-distributed gaps, as in vLLM: below 1 in bursts, 1 Poisson, above 1 more evenly.",
    ),
]
TraceFile = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        rich_help_panel=LOAD,
        help="Replay when requests came and how long they were: CSV or JSONL with timestamp, prompt_tokens, "
        "output_tokens [dim](session, prefix)[/]; Azure's and Mooncake's traces as they are.",
    ),
]
Speed = Annotated[
    float | None,
    typer.Option(
        metavar="X", min=0.001, rich_help_panel=LOAD, help="Replay X times as fast; 2 halves all waits."
    ),
]
RampSteps = Annotated[
    str | None,
    typer.Option(
        metavar="STEPS",
        rich_help_panel=LOAD,
        help="Find the knee: streams 1,2,4,8 or auto (doubling until it gains less than 5 %); requests a "
        "second rate:1,2,4 or rate:auto:0.5. Warm-up and limits are those of each step.",
    ),
]
Requests = Annotated[
    int | None,
    typer.Option(metavar="N", min=1, rich_help_panel=LOAD, help="Stop after N requests, turns counted each."),
]
Duration = Annotated[
    float | None,
    typer.Option(
        metavar="S",
        min=0.001,
        rich_help_panel=LOAD,
        help="Begin requests for S seconds. Default: 30, or all of a trace.",
    ),
]
Warmup = Annotated[
    str,
    typer.Option(
        metavar="N|Ss", rich_help_panel=LOAD, help="Same load before, not measured: 10 requests, or 10s."
    ),
]

PromptLength = Annotated[
    str | None,
    typer.Option(
        "--prompt-tokens",
        metavar="LENGTH",
        rich_help_panel=REQUESTS,
        help=f"Tokens of the prompts, of each turn's own. Default: {PROMPT_TOKENS}.",
    ),
]
OutputLength = Annotated[
    str | None,
    typer.Option(
        "--output-tokens",
        metavar="LENGTH",
        rich_help_panel=REQUESTS,
        help=f"Tokens of the answers (max_tokens). Default: {OUTPUT_TOKENS}, or the dataset's.",
    ),
]
SharedPrefixLength = Annotated[
    int | None,
    typer.Option(
        "--shared-prefix",
        metavar="N",
        min=0,
        rich_help_panel=REQUESTS,
        help="Leading tokens all prompts share, of --prompt-tokens: for prompt caches to find.",
    ),
]
PrefixGroups = Annotated[
    int | None,
    typer.Option(
        metavar="N", min=1, rich_help_panel=REQUESTS, help="N different shared prefixes, each prompt has one."
    ),
]
Turns = Annotated[
    str | None,
    typer.Option(
        metavar="N",
        rich_help_panel=REQUESTS,
        help="Conversations of N turns (or uniform:2,6): each sends all before it, with the real answers.",
    ),
]
ThinkTime = Annotated[
    str | None,
    typer.Option(
        metavar="SECONDS",
        rich_help_panel=REQUESTS,
        help="From an answer to the next turn: 2, exponential:5, uniform:1,10, lognormal:4,80. Default: 0.",
    ),
]
DatasetFile = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        rich_help_panel=REQUESTS,
        help="Real prompts, drawn by the seed: ShareGPT's JSON, or JSONL with prompt or messages, and "
        "output_tokens. What they say is in no result.",
    ),
]

Processes = Annotated[
    int,
    typer.Option(
        metavar="N",
        min=1,
        rich_help_panel=GENERATOR,
        help="Split the load over N processes, when one is the bottleneck.",
    ),
]
Pin = Annotated[
    bool | None,
    typer.Option(
        "--pin/--no-pin",
        rich_help_panel=GENERATOR,
        help="Each to a core of its own. Default: several are, where there are cores enough.",
    ),
]
