"""``porten-hub receipts | audit``.

Owns their words and options; see :mod:`hub.cli`. What is checked how is :mod:`hub.evidence`'s.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from hub.audit import Event, Finding, ids_in
from hub.errors import InvalidInput, NotFound
from hub.evidence import (
    LogCheck,
    Verdict,
    checkpoints_in,
    judge,
    keys_in,
    read_export,
    receipts_in,
)
from hub.identity import load_hub_key
from hub.log_export import whole_log
from hub.operations import Workplace
from hub.terminal import EXIT_FAILED, config_of, explained, out, say, show_table, work
from tunnel.identity import encode_public_key, fingerprint
from tunnel.receipts import VerifiedReceipt

receipts_app = typer.Typer(help="Signed proof of where requests ran.", no_args_is_help=True)
audit_app = typer.Typer(help="Everything that was done to this Hub, and refused by it.", no_args_is_help=True)

HubKeyOption = Annotated[
    Path | None,
    typer.Option(
        "--hub-key",
        help="File with the public keys of Hubs to trust, one a line, or /.well-known/porten as it came; "
        "this Hub's own where unset.",
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="For programs.")]


@receipts_app.command("key")
def show_key(context: typer.Context) -> None:
    """Print this Hub's public key, which is all that a check of its receipts needs.

    Keep it where receipts are checked. It is also `public_key` in /.well-known/porten.
    """
    with explained():
        out.print(encode_public_key(_own_key(context)), markup=False)


@receipts_app.command("verify")
def verify_receipts(
    context: typer.Context,
    file: Annotated[
        str,
        typer.Argument(help="File with receipts, '-' for standard input: one a line, or curl -i's output."),
    ] = "-",
    *,
    hub_key: HubKeyOption = None,
    as_json: JsonOption = False,
) -> None:
    """Check receipts offline, and say what each one proves. Exits with 1 where one does not hold.

    [bold]Examples[/bold]

    curl -si https://hub.example.org/v1/… | porten-hub receipts verify

    porten-hub receipts verify receipts.txt --hub-key hub.pub
    """
    with explained():
        verdicts = judge(receipts_in(_text_of(file)), _trusted(context, hub_key))
    for verdict in verdicts:
        if as_json:
            sys.stdout.write(json.dumps(_document(verdict)) + "\n")
        else:
            _show(verdict)
    if any(verdict.verified is None for verdict in verdicts):
        raise typer.Exit(EXIT_FAILED)


@audit_app.command("list")
def list_events(
    context: typer.Context,
    *,
    organisation: Annotated[str | None, typer.Option(help="Only this one's events: name or id.")] = None,
    action: Annotated[
        list[str] | None, typer.Option(help="Only these, such as key.created. Repeatable.")
    ] = None,
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="So many, the newest first.")] = 50,
) -> None:
    """List the newest events. What tells who a person was is shown as long as it was not erased."""

    async def job(place: Workplace) -> tuple[list[Event], dict[str, str]]:
        of = None if organisation is None else (await place.organisation(organisation)).id
        events = await place.storage.audit.page(of, actions=action or (), limit=limit)
        return events, await place.storage.audit.names(ids_in(events))

    events, names = work(context, job)
    rows = [
        (
            *(str(event.sequence), _time(event), event.action),
            *(names.get(event.actor, event.actor), names.get(event.subject, event.subject)),
            _details(event, names),
        )
        for event in events
    ]
    show_table(("seq", "time (UTC)", "action", "by", "of", "details"), rows, empty="There are no events.")


@audit_app.command("verify")
def verify_log(
    context: typer.Context,
    *,
    file: Annotated[
        Path | None, typer.Option(help="An export, checked offline; this Hub's own log where unset.")
    ] = None,
    checkpoint: Annotated[
        list[Path] | None,
        typer.Option(
            help="File with checkpoints kept elsewhere, such as the Hub's collected log. Repeatable."
        ),
    ] = None,
    hub_key: HubKeyOption = None,
    as_json: JsonOption = False,
) -> None:
    """Look for any edit, deletion, insertion or change of order. Exits with 1 where there is one.

    What was cut off at the end shows against a checkpoint that was kept elsewhere: each is in the Hub's log,
    as event=audit.checkpoint.

    [bold]Examples[/bold]

    porten-hub audit verify

    porten-hub audit verify --checkpoint /var/log/porten-hub.log

    porten-hub audit verify --file audit.jsonl --hub-key hub.pub
    """
    with explained():
        kept = [token for path in checkpoint or () for token in checkpoints_in(_text_of(str(path)))]
        if file is not None:
            check, findings = asyncio.run(_verify_export(context, file, kept, hub_key))
        else:
            check, findings = _verify_own(context, kept, hub_key)
    _report(check, findings, as_json=as_json)
    if findings:
        raise typer.Exit(EXIT_FAILED)


@audit_app.command("checkpoint")
def make_checkpoint(context: typer.Context) -> None:
    """Sign the log as it is now. Keep what is printed where nobody who runs the Hub can change it."""

    async def job(place: Workplace) -> str:
        token = await place.sealer.seal(place.storage.audit)
        if token is None:
            raise NotFound("event", "the log is empty")
        return token

    out.print(work(context, job), markup=False)


@audit_app.command("export")
def export_log(context: typer.Context) -> None:
    """Write the whole log to standard output, as JSON lines with all that a check offline needs.

    [bold]Example[/bold]

    porten-hub audit export > audit.jsonl
    """

    async def job(place: Workplace) -> None:
        async for line in whole_log(place.storage.audit, place.sealer, place.hub_id, place.public_key):
            sys.stdout.write(line + "\n")

    work(context, job)


def _verify_own(
    context: typer.Context, kept: Sequence[str], hub_key: Path | None
) -> tuple[LogCheck, list[Finding]]:
    further = [] if hub_key is None else keys_in(_text_of(str(hub_key)))

    async def job(place: Workplace) -> tuple[LogCheck, list[Finding]]:
        audit = place.storage.audit
        tokens = [*await audit.checkpoints(), *kept]
        check = LogCheck(place.hub_id, tokens, [place.public_key, *further], await audit.head())

        async def head_after() -> int:
            return (await audit.head())[0]

        return check, await check.over(audit.chain(), head_after)

    return work(context, job)


async def _verify_export(
    context: typer.Context, file: Path, kept: Sequence[str], hub_key: Path | None
) -> tuple[LogCheck, list[Finding]]:
    export = read_export(_text_of(str(file)))
    keys = _trusted(context, hub_key)

    async def events() -> AsyncIterator[Event]:
        for event in export.events:
            yield event

    check = LogCheck(export.hub_id, [*export.checkpoints, *kept], keys)
    return check, await check.over(events())


def _report(check: LogCheck, findings: Sequence[Finding], *, as_json: bool) -> None:
    if as_json:
        told = [asdict(finding) for finding in findings]
        found = {"ok": not findings, "events": check.events, "sealed": check.sealed, "findings": told}
        sys.stdout.write(json.dumps(found) + "\n")
        return
    for finding in findings:
        say.print(f"[red]{finding.problem.value}[/red]: {finding.words}", highlight=False)
    if findings:
        say.print(f"The log is not as it was written: {_counted(findings)} in {check.events} events.")
    else:
        say.print(f"The log is whole: {check.events} events from number {check.first} on.")
    say.print(_sealed_words(check.sealed))


def _counted(findings: Sequence[Finding]) -> str:
    return "1 finding" if len(findings) == 1 else f"{len(findings)} findings"


def _sealed_words(sealed: int) -> str:
    if not sealed:
        return (
            "Nothing is signed yet, so what is cut off at the end does not show: porten-hub audit checkpoint"
        )
    return f"The newest checkpoint is signed at event {sealed}; what came later could be cut off unseen."


def _show(verdict: Verdict) -> None:
    if verdict.verified is None:
        say.print(f"[red]does not hold[/red]: {verdict.reason}", highlight=False)
        return
    for line in words_of(verdict.verified):
        out.print(line, markup=False)


def words_of(found: VerifiedReceipt) -> list[str]:
    """What a receipt proves, in words."""
    receipt, credential = found.receipt, found.credential
    moment = datetime.fromtimestamp(receipt.issued_at, tz=UTC)
    hub = f"{credential.hub_id} ({fingerprint(encode_public_key(found.hub_key))})"
    return [
        f"holds: request {receipt.request_id}",
        f"  was answered by node {receipt.node_id} of organisation {receipt.owner_id}",
        f"  in region {receipt.region or '(none)'}, trust class {credential.trust}",
        f"  by model {receipt.model}, weights {receipt.model_digest or '(not told)'}",
        f"  for key {receipt.key_id} under the policy {receipt.policy_hash}",
        f"  at {moment:%Y-%m-%d %H:%M:%S} UTC by the node's clock",
        f"  signed by the node's key {fingerprint(credential.public_key)}, for which Hub {hub} vouches",
    ]


def _document(verdict: Verdict) -> dict[str, Any]:
    if verdict.verified is None:
        return {"ok": False, "reason": verdict.reason}
    found = verdict.verified
    return {
        "ok": True,
        "receipt": msgspec.to_builtins(found.receipt),
        "credential": asdict(found.credential),
        "hub_key": encode_public_key(found.hub_key),
    }


def _trusted(context: typer.Context, hub_key: Path | None) -> list[Ed25519PublicKey]:
    return [_own_key(context)] if hub_key is None else keys_in(_text_of(str(hub_key)))


def _own_key(context: typer.Context) -> Ed25519PublicKey:
    config = config_of(context)
    return load_hub_key(config.key_file, config.database_file).public_key()


def _text_of(file: str) -> str:
    try:
        return sys.stdin.read() if file == "-" else Path(file).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidInput("file", f"{file} cannot be read: {error}") from None


def _time(event: Event) -> str:
    return _moment(event.time_ms / 1000)


def _moment(utc: float) -> str:
    return f"{datetime.fromtimestamp(utc, tz=UTC):%Y-%m-%d %H:%M:%S}"


def _details(event: Event, names: dict[str, str]) -> str:
    return ", ".join(f"{name}={_value(name, value, names)}" for name, value in event.facts().items())


def _value(name: str, value: object, names: Mapping[str, str]) -> str:
    """A fact as people read it: lists and counts by their members, times as times."""
    if isinstance(value, dict):
        return "+".join(f"{key}:{count}" for key, count in value.items()) or "none"
    if isinstance(value, list):
        return "+".join(map(str, value)) or "none"
    if name.endswith("_at") and isinstance(value, int | float):
        return _moment(value)
    return names.get(str(value), str(value))
