"""Options that the commands of ``porten-bench`` share, in one wording."""

from typing import Annotated

import typer

Seed = Annotated[
    int | None, typer.Option(metavar="N", help="Same seed: same prompts, lengths, arrivals. Default: random.")
]
Json = Annotated[
    str | None, typer.Option("--json", metavar="FILE", help="Write the result there; - is stdout.")
]
Quiet = Annotated[bool, typer.Option("--quiet", help="No progress on stderr.")]
Quick = Annotated[bool, typer.Option("--quick", help="Small and short: shows that it works.")]
