"""How the Hub's commands speak: where they write, how they ask, what their errors look like.

Owns the consoles, the asking for passwords and the exit statuses. Answers go to stdout, so that scripts can
take them; everything said to people goes to stderr.
"""

from __future__ import annotations

import asyncio
import secrets
import sys
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer
from rich.console import Console
from rich.table import Table

from hub.accounts import MINIMUM_PASSWORD, checked_password
from hub.config import HubConfig, LoadedConfig
from hub.errors import ConfigInvalid, HubError, InvalidInput
from hub.operations import Workplace, workplace
from hub.quotas import Allowance

Result = TypeVar("Result")

EXIT_FAILED = 1
EXIT_MISUSED = 2

_LIMIT = "N|none"
RequestsPerMinute = Annotated[
    str | None, typer.Option(help="Requests it may make a minute, such as 600; none: any.", metavar=_LIMIT)
]
TokensPerMinute = Annotated[
    str | None,
    typer.Option(help="Tokens it may use a minute, prompt and completion: 20k, 1M.", metavar=_LIMIT),
]
ConcurrentRequests = Annotated[
    str | None, typer.Option(help="Requests it may have under way at once.", metavar=_LIMIT)
]
MonthlyTokens = Annotated[
    str | None,
    typer.Option(help="Tokens it may use in a calendar month (UTC): 5M, 1G.", metavar=_LIMIT),
]

_GENERATED_BYTES = 18
_PIPE_WIDTH = 400  # what reads a pipe wants whole values, not a fit to a screen

out = Console(soft_wrap=True, highlight=False)
say = Console(stderr=True, soft_wrap=True, highlight=False)


@contextmanager
def explained() -> Iterator[None]:
    """Turn the Hub's own errors into one line for people and an exit status."""
    try:
        yield
    except ConfigInvalid as error:
        for problem in error.problems:
            say.print(f"[red]error:[/red] {_plain(problem)}")
        raise typer.Exit(EXIT_MISUSED) from None
    except InvalidInput as error:
        say.print(f"[red]error:[/red] {_plain(str(error))}")
        raise typer.Exit(EXIT_MISUSED) from None
    except HubError as error:
        say.print(f"[red]error:[/red] {_plain(str(error))}")
        raise typer.Exit(EXIT_FAILED) from None


def work(context: typer.Context, job: Callable[[Workplace], Awaitable[Result]]) -> Result:
    """Run a command's job on the Hub's database."""

    async def run() -> Result:
        async with workplace(config_of(context), time.time) as place:
            return await job(place)

    with explained():
        return asyncio.run(run())


def loaded_of(context: typer.Context) -> LoadedConfig:
    """The settings, with their origins."""
    loaded = context.obj
    assert isinstance(loaded, LoadedConfig)
    return loaded


def config_of(context: typer.Context) -> HubConfig:
    """The settings."""
    return loaded_of(context).config


def is_interactive() -> bool:
    """Whether somebody can be asked."""
    return sys.stdin.isatty() and sys.stderr.isatty()


def ask(words: str, check: Callable[[str], str], **options: Any) -> str:
    """Ask somebody until the answer can be accepted; ``options`` are the prompt's."""
    while True:
        try:
            return check(typer.prompt(words, err=True, **options))
        except InvalidInput as error:
            say.print(f"[red]error:[/red] {_plain(error.message)}")


def ask_password(file: str | None) -> str:
    """A password from a file, ``-`` (stdin), a prompt, or drawn by chance and shown once.

    Raises:
        InvalidInput: the file cannot be read, or the password cannot be accepted.
    """
    if file is not None:
        return checked_password(_read_password(file))
    if is_interactive():
        words = f"Password ({MINIMUM_PASSWORD} characters or more)"
        return ask(words, checked_password, hide_input=True, confirmation_prompt=True)
    password = secrets.token_urlsafe(_GENERATED_BYTES)
    say.print("No password was given and nobody can be asked, so one was drawn. It is shown only now:")
    out.print(password, markup=False)
    return password


def show_table(columns: tuple[str, ...], rows: Sequence[tuple[str, ...]], empty: str) -> None:
    """Print rows as a table, or say that there are none."""
    if not rows:
        say.print(empty)
        return
    first, *others = columns
    table = Table(box=None, pad_edge=False)
    table.add_column(first, no_wrap=True)  # ids are there to be copied
    for column in others:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*map(_plain, row))
    Console(width=None if out.is_terminal else _PIPE_WIDTH, highlight=False).print(table)


def day(moment: float | None, never: str = "never") -> str:
    """A time as people read it, UTC, to the minute."""
    return never if moment is None else f"{datetime.fromtimestamp(moment, tz=UTC):%Y-%m-%d %H:%M}"


def limits_words(limits: Allowance) -> str:
    """Limits as people read them."""
    told = (
        (limits.requests_per_minute, "requests/min"),
        (limits.tokens_per_minute, "tokens/min"),
        (limits.concurrent_requests, "at once"),
        (limits.monthly_tokens, "tokens/month"),
    )
    return ", ".join(f"{count:,} {what}" for count, what in told if count is not None) or "none"


def _read_password(file: str) -> str:
    try:
        text = sys.stdin.readline() if file == "-" else Path(file).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidInput("password-file", f"cannot be read: {error}") from None
    return text.rstrip("\r\n")


def _plain(text: str) -> str:
    """Text that came from outside: its brackets are no markup, its control characters no commands."""
    return "".join(filter(str.isprintable, text)).replace("[", r"\[")
