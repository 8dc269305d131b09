"""Options that the commands of ``porten-bench`` share, in one wording."""

from pathlib import Path
from typing import Annotated, Final, Literal

import typer

from benchmarks.command.outputs import writable
from benchmarks.generator.target import Api

KEY_VARIABLE: Final = "PORTEN_API_KEY"
URL_FORM: Final = "http://host:port/v1"

Seed = Annotated[
    int | None, typer.Option(metavar="N", help="Same seed: same prompts, lengths, arrivals. Default: random.")
]
Json = Annotated[
    str | None,
    typer.Option("--json", metavar="FILE", callback=writable, help="Write the result there; - is stdout."),
]
Quiet = Annotated[bool, typer.Option("--quiet", help="No progress on stderr.")]
Quick = Annotated[bool, typer.Option("--quick", help="Small and short: shows that it works.")]

Endpoint = Literal["chat", "completions"]
APIS: Final = {"chat": Api.CHAT, "completions": Api.COMPLETIONS}

Slos = Annotated[
    list[str] | None,
    typer.Option("--slo", metavar="SLO", help="ttft=500ms, itl:p95=50ms, tpot=30ms, e2el=5s: tell goodput."),
]
MaxErrors = Annotated[str, typer.Option(metavar="SHARE", help="Refuse a result with more failures.")]
Steady = Annotated[
    Literal["auto", "off"], typer.Option(help="Find the steady part, or tell figures of the whole run.")
]
Percentiles = Annotated[
    list[float] | None,
    typer.Option("--percentile", metavar="P", help="Tell 99.9, say. Default: what the samples allow."),
]

Model = Annotated[str, typer.Option(metavar="NAME", help="Model to ask for.")]
ApiChoice = Annotated[Endpoint, typer.Option("--endpoint", help="Which API to use.")]
PromptTokens = Annotated[str, typer.Option(metavar="LENGTH", help="Tokens of the prompts.")]
OutputTokens = Annotated[str, typer.Option(metavar="LENGTH", help="Tokens of the answers (max_tokens).")]
SharedPrefix = Annotated[int, typer.Option(metavar="N", min=0, help="Leading tokens all prompts share.")]
IgnoreEos = Annotated[bool, typer.Option(help="Ask the engine to go on to the full length.")]
Timeout = Annotated[float, typer.Option(metavar="S", min=0.001, help="Seconds for one request.")]
CaFile = Annotated[Path | None, typer.Option(metavar="FILE", help="Certificates to trust, not the system's.")]
KeyFile = Annotated[
    Path | None, typer.Option(metavar="FILE", help=f"Holds the API key. Default: {KEY_VARIABLE}, if set.")
]
