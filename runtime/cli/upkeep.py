"""`porten doctor` and `porten config`: what is wrong, and what is set."""

import asyncio
import json
from collections.abc import Mapping
from dataclasses import asdict
from typing import Annotated

import typer
from pydantic import SecretStr

from runtime.cli.terminal import columns, console, loaded, say
from runtime.doctor import examine
from runtime.findings import Verdict

config_app = typer.Typer(help="Settings.", no_args_is_help=True)

_UNTOUCHED = "default"
_SIGNS = {Verdict.OK: "ok", Verdict.WARNING: "warning", Verdict.FAILED: "FAILED"}


@config_app.command("show")
def show(
    context: typer.Context,
    *,
    changed: Annotated[bool, typer.Option("--changed", help="Only what is not at its default.")] = False,
) -> None:
    """Show every setting, its value, and where the value came from."""
    found = loaded(context)
    shown = {name: origin for name, origin in found.origins.items() if not changed or origin != _UNTOUCHED}
    table = columns("setting", "value", "from")
    for name, origin in shown.items():
        table.add_row(name, _shown(getattr(found.config, name)), origin)
    if shown:
        console().print(table)
    else:
        say("Every setting is at its default.")
    say(f"\nfile: {found.file or f'none at {found.usual_file}'}")


def doctor(
    context: typer.Context,
    *,
    as_json: Annotated[bool, typer.Option("--json", help="Print the findings as JSON.")] = False,
) -> None:
    """Look for what keeps this machine from serving, and say what to do about it. Exit code 1 if so."""
    findings = asyncio.run(examine(loaded(context)))
    if as_json:
        say(json.dumps([asdict(finding) for finding in findings], indent=2))
    else:
        table = columns("", "what", "found", "what to do")
        for finding in findings:
            table.add_row(_SIGNS[finding.verdict], finding.subject, finding.found, finding.remedy)
        console().print(table)
    if any(finding.verdict is Verdict.FAILED for finding in findings):
        raise typer.Exit(1)


def _shown(value: object) -> str:
    if value is None:
        return "-"
    if isinstance(value, SecretStr):
        return "(set)"
    if isinstance(value, tuple):
        return ", ".join(str(part) for part in value) or "-"
    if isinstance(value, Mapping):
        return ", ".join(f"{name}: {getattr(each, 'url', each)}" for name, each in value.items()) or "-"
    return str(value)
