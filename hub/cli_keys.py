"""``porten-hub keys``.

Owns its words and options; see :mod:`hub.cli`. What a key may be is :mod:`hub.keys`'s.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Annotated

import typer

from hub.cli_access import OrganisationOption
from hub.errors import InvalidInput
from hub.keys import IssuedKey, change_key, issue_key, rotate_key
from hub.operations import (
    Workplace,
    absent_models,
    find_key,
    read_duration,
    read_fleet,
    read_limits,
    read_trust,
)
from hub.policy import Fleet, TrustClass
from hub.quotas import UNLIMITED
from hub.storage.records import ApiKey
from hub.terminal import (
    ConcurrentRequests,
    MonthlyTokens,
    RequestsPerMinute,
    TokensPerMinute,
    config_of,
    day,
    explained,
    limits_words,
    out,
    say,
    show_table,
    work,
)

keys_app = typer.Typer(help="API keys, the policies they carry and their limits.", no_args_is_help=True)

KeyArgument = Annotated[str, typer.Argument(help="Its id, the beginning that the list shows, or its name.")]


@keys_app.command("create")
def create_key(
    context: typer.Context,
    *,
    name: Annotated[str, typer.Option(help="What you will call it.")],
    fleet: Annotated[
        str, typer.Option(help="Whose nodes it may use.", metavar="|".join(Fleet))
    ] = Fleet.OWN.value,
    region: Annotated[
        list[str] | None, typer.Option(help="A region it may use; none means anywhere. Repeatable.")
    ] = None,
    trust: Annotated[str, typer.Option(help="The least trust class of a node.")] = "community",
    model: Annotated[
        list[str] | None, typer.Option(help="A model it may use; none means all. Repeatable.")
    ] = None,
    expires: Annotated[str | None, typer.Option(help="After how long it ends: 90d, 12h, 30m.")] = None,
    requests_per_minute: RequestsPerMinute = None,
    tokens_per_minute: TokensPerMinute = None,
    concurrent_requests: ConcurrentRequests = None,
    monthly_tokens: MonthlyTokens = None,
    organisation: OrganisationOption = None,
) -> None:
    """Make an API key. Its secret goes to standard output and is shown only now.

    [bold]Examples[/bold]

    porten-hub keys create --name my-app

    porten-hub keys create --name eu --region eu --trust verified --expires 90d

    porten-hub keys create --name batch --monthly-tokens 100M
    """
    with explained():
        whose, minimum_trust = read_fleet(fleet), read_trust(trust)
        lifetime = None if expires is None else read_duration(expires)
        limits = read_limits(
            UNLIMITED,
            requests_per_minute=requests_per_minute,
            tokens_per_minute=tokens_per_minute,
            concurrent_requests=concurrent_requests,
            monthly_tokens=monthly_tokens,
        )

    async def job(place: Workplace) -> IssuedKey:
        now = place.clock()
        owner = await place.organisation(organisation)
        return await issue_key(
            place.storage,
            owner.id,
            name=name,
            now=now,
            fleet=whose,
            regions=region or (),
            minimum_trust=minimum_trust,
            models=model or None,
            expires_at=None if lifetime is None else now + lifetime,
            limits=limits,
        )

    _warn_of_absent(context, model or ())
    issued = work(context, job)
    say.print(f"Made {issued.key.id}. Its secret is shown only now:", markup=False)
    out.print(issued.secret, markup=False)


@keys_app.command("list")
def list_keys(context: typer.Context, *, organisation: OrganisationOption = None) -> None:
    """List the keys of an organisation; one that was rotated has a second line while its old secret works."""

    async def job(place: Workplace) -> list[ApiKey]:
        return await place.storage.keys.list((await place.organisation(organisation)).id)

    now = time.time()
    rows = [row for key in work(context, job) for row in _key_rows(key, now)]
    columns = (
        "id",
        "name",
        "key",
        "fleet",
        "regions",
        "trust",
        "models",
        "limits",
        "ends",
        "state",
        "last used",
    )
    show_table(columns, rows, empty="There are no keys: porten-hub keys create --name my-app")


@keys_app.command("set")
def set_key(
    context: typer.Context,
    key: KeyArgument,
    *,
    name: Annotated[str | None, typer.Option(help="What you will call it.")] = None,
    fleet: Annotated[
        str | None, typer.Option(help="Whose nodes it may use.", metavar="|".join(Fleet))
    ] = None,
    region: Annotated[
        list[str] | None, typer.Option(help="The regions it may use, in place of those it has. Repeatable.")
    ] = None,
    anywhere: Annotated[bool, typer.Option("--anywhere", help="Let it use every region.")] = False,
    trust: Annotated[str | None, typer.Option(help="The least trust class of a node.")] = None,
    model: Annotated[
        list[str] | None, typer.Option(help="The models it may use, in place of those it has. Repeatable.")
    ] = None,
    all_models: Annotated[bool, typer.Option("--all-models", help="Let it use every model.")] = False,
    expires: Annotated[
        str | None, typer.Option(help="After how long from now it ends, 90d, 12h, 30m; or never.")
    ] = None,
    requests_per_minute: RequestsPerMinute = None,
    tokens_per_minute: TokensPerMinute = None,
    concurrent_requests: ConcurrentRequests = None,
    monthly_tokens: MonthlyTokens = None,
) -> None:
    """Change what a key allows. What is not named stays as it is, and so does its secret.

    A running Hub obeys within a second; requests under way go on.

    [bold]Examples[/bold]

    porten-hub keys set key_… --region eu --trust verified

    porten-hub keys set key_… --tokens-per-minute 50k --monthly-tokens none
    """
    named = {
        "requests_per_minute": requests_per_minute,
        "tokens_per_minute": tokens_per_minute,
        "concurrent_requests": concurrent_requests,
        "monthly_tokens": monthly_tokens,
    }
    with explained():
        _check_contradictions(region, model, anywhere=anywhere, all_models=all_models)
        whose = None if fleet is None else read_fleet(fleet)
        minimum_trust = None if trust is None else read_trust(trust)
        lifetime = None if expires in (None, "never") else read_duration(expires)
        read_limits(UNLIMITED, **named)
        _check_change(name, fleet, region, anywhere, trust, model, all_models, expires, *named.values())

    async def attempt(place: Workplace, found: str) -> ApiKey | None:
        key, now = await place.key(found), place.clock()
        expires_at = key.expires_at if expires is None else None if lifetime is None else now + lifetime
        return await change_key(
            place.storage,
            key,
            now=now,
            name=key.name if name is None else name,
            fleet=whose or read_fleet(key.fleet),
            regions=() if anywhere else region or key.regions,
            minimum_trust=_trust_of(key) if minimum_trust is None else minimum_trust,
            models=None if all_models else model or key.models,
            expires_at=expires_at,
            limits=read_limits(key.limits, **named),
        )

    async def job(place: Workplace) -> ApiKey:
        found, changed = await find_key(place.storage, key, place.clock()), None
        while changed is None:  # again whenever somebody else changed it between our look and our write
            changed = await attempt(place, found.id)
        return changed

    _warn_of_absent(context, model or ())
    changed = work(context, job)
    say.print(f"{changed.id} is changed; limits: {limits_words(changed.limits)}.", markup=False)


@keys_app.command("rotate")
def rotate(
    context: typer.Context,
    key: KeyArgument,
    *,
    overlap: Annotated[
        str,
        typer.Option(help="How long the secret before still works: 24h, 7d, at most 90d; 0s ends it now."),
    ] = "24h",
) -> None:
    """Give a key another secret, which goes to standard output and is shown only now.

    Its rules, limits and usage stay. The secret before works until the overlap ends, so that apps can go over
    one by one; the list shows when it was last used. A key has at most two secrets: one that an earlier
    rotation left ends now.

    [bold]Example[/bold]

    porten-hub keys rotate key_… --overlap 24h
    """
    with explained():
        overlap_s = read_duration(overlap, "overlap")

    async def job(place: Workplace) -> IssuedKey:
        found = await find_key(place.storage, key, place.clock())
        return await rotate_key(place.storage, found, now=place.clock(), overlap_s=overlap_s)

    issued = work(context, job)
    end = f"works until {day(issued.key.previous_expires_at)} UTC" if overlap_s else "has ended"
    say.print(f"{issued.key.id} has a new secret, shown only now; the one before {end}:", markup=False)
    out.print(issued.secret, markup=False)


@keys_app.command("revoke")
def revoke_key(context: typer.Context, key: KeyArgument) -> None:
    """End a key, with every secret it has. A running Hub refuses it within a second.

    [bold]Examples[/bold]

    porten-hub keys revoke my-app

    porten-hub keys revoke key_…
    """

    async def job(place: Workplace) -> ApiKey:
        found = await find_key(place.storage, key, place.clock())
        await place.storage.keys.revoke(found.id, now=place.clock())
        return found

    found = work(context, job)
    say.print(f"{found.id} ({found.name}) is revoked.", markup=False)


def _check_change(*named: object) -> None:
    if not any(each is not None and each is not False for each in named):
        raise InvalidInput("key", "say what is to be another, such as --region eu or --expires 90d")


def _check_contradictions(
    region: Sequence[str] | None, model: Sequence[str] | None, *, anywhere: bool, all_models: bool
) -> None:
    if anywhere and region:
        raise InvalidInput("region", "either --region or --anywhere")
    if all_models and model:
        raise InvalidInput("model", "either --model or --all-models")


def _trust_of(key: ApiKey) -> TrustClass:
    return read_trust(key.minimum_trust)


def _key_rows(key: ApiKey, now: float) -> list[tuple[str, ...]]:
    state = "active" if key.is_active(now) else "revoked" if key.revoked_at is not None else "expired"
    regions = ", ".join(sorted(key.regions)) or "anywhere"
    models = "all" if key.models is None else ", ".join(sorted(key.models)) or "none"
    rows: list[tuple[str, ...]] = [
        (
            *(key.id, key.name, f"{key.prefix}…", key.fleet, regions, key.minimum_trust, models),
            *(limits_words(key.limits), day(key.expires_at), state, day(key.last_used_at)),
        )
    ]
    if key.is_active(now) and key.has_overlap(now):
        ends, used = day(key.previous_expires_at), day(key.previous_used_at)
        rows.append((key.id, "", f"{key.previous_prefix}…", *[""] * 5, ends, "rotated out", used))
    return rows


def _warn_of_absent(context: typer.Context, models: Sequence[str]) -> None:
    with explained():
        absent = absent_models(config_of(context), models)
    for model in absent:
        say.print(
            f"warning: the catalog has no model {model!r}: the key may use it where a node offers one of "
            "that name",
            markup=False,
        )
