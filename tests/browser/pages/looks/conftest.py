"""An organisation with everything in it, and one with nothing, for pictures of every page."""

from base64 import b32decode
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pytest_asyncio
from cryptography.hazmat.primitives.hashes import SHA1
from cryptography.hazmat.primitives.twofactor.totp import TOTP

from hub.identity_provider import Client, IdentityProvider
from hub.keys import issue_key, rotate_key
from hub.policy import Fleet, Sharing, SharingKind, TrustClass
from hub.quotas import Allowance
from hub.single_sign_on import EntryRules, SingleSignOn
from hub.storage.records import UsageRecord

DAY_S = 86_400
LONG = "workstation-of-the-computational-linguistics-group-second-floor-room-2.117-behind-the-printer"


@dataclass
class Scene:
    """A company with everything in it, one with nothing, and one that is changed by what is pictured."""

    portal: Any
    acme: Any
    nobody: Any
    makers: Any
    machines: dict[str, Any]
    keys: dict[str, Any]

    @contextmanager
    def single_sign_on(self) -> Iterator[None]:
        """A Hub that has an identity provider, which does not answer; without one again afterwards."""
        hub = self.portal.hub
        client = Client("http://127.0.0.1:9", "porten", "secret", ("openid",))
        entry = EntryRules("Example ID", "groups", (), ())
        hub.single_sign_on = SingleSignOn(IdentityProvider(client, hub.clock), entry, hub.storage, hub.clock)
        yield
        hub.single_sign_on = None

    def code_of(self, secret: str) -> str:
        """What an authenticator app shows now that was told this secret."""
        key = b32decode(secret.replace(" ", ""))
        return TOTP(key, 6, SHA1(), 30).generate(self.portal.hub.clock()).decode()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def scene(portal, new_team, pieces) -> Scene:
    acme, nobody, makers = [await new_team(name) for name in ("Acme Research", "Newcomers", "Makers")]
    machines = await machines_of(acme, pieces)
    keys = await keys_of(acme)
    await use(acme, keys, machines)
    return Scene(portal, acme, nobody, makers, machines, keys)


async def machines_of(acme, pieces) -> dict[str, Any]:
    """One node in each of the states that a node can be in."""
    other = Sharing(SharingKind.ORGANISATIONS, frozenset({acme.organisation.id}))
    busy = await acme.machine("fra-gpu-01")
    two = tuple(pieces.device(id=f"cuda:{n}", memory_reserved=n * 34 * pieces.gib) for n in (0, 1))
    loading = pieces.model("qwen2.5-32b-instruct", "warming", phase="loading", done_bytes=45, total_bytes=100)
    await busy.connect()
    await busy.report(
        devices=two, models=(pieces.model(pieces.model_id), loading, pieces.model("bge-m3", "cold"))
    )
    idle = await acme.machine("fra-gpu-02", trust=TrustClass.VERIFIED, sharing=other)
    await idle.connect()
    await idle.report(
        accepting=False,
        reason="paused by its owner: another program uses the card",
        models=(pieces.model("bge-m3", "cold"),),
    )
    far = await acme.machine(LONG, "us-central", region_confirmed=False, trust=TrustClass.COMMUNITY)
    old = await acme.machine("attic-mac-mini", None, sharing=Sharing(SharingKind.PUBLIC))
    gone = await acme.machine("sold-last-year")
    await acme.portal.hub.enrollment.revoke(gone.node_id)
    resting = await acme.machine("fra-gpu-03", trust=TrustClass.VERIFIED)
    await resting.connect()
    await resting.report(models=(pieces.model(pieces.model_id), pieces.model("bge-m3", "cold")))
    for _ in range(3):
        acme.portal.hub.registry.occupy(resting.node_id, pieces.model_id)
    await acme.portal.hub.enrollment.drain(resting.node_id)
    return {"busy": busy, "idle": idle, "far": far, "old": old, "gone": gone, "resting": resting}


async def keys_of(acme) -> dict[str, Any]:
    """Keys from plain to peculiar."""
    storage, now = acme.portal.hub.storage, acme.portal.hub.clock()

    async def key(name: str, **choices: Any) -> Any:
        return (await issue_key(storage, acme.organisation.id, name=name, now=now, **choices)).key

    many = frozenset(f"mistral-small-3.{n}-24b-instruct-2501" for n in range(6))
    keys = {
        "app": await key("Support assistant", regions=["eu"], limits=Allowance(600, 200_000, 20, 40_000_000)),
        "batch": await key(
            "Nightly summaries of everything that the archive received during the day, in German",
            fleet=Fleet.ANY,
            regions=["eu-de", "eu-fr", "ch", "no"],
            minimum_trust=TrustClass.TRUSTED,
            models=many,
            expires_at=now + 30 * DAY_S,
            limits=Allowance(monthly_tokens=8_000_000),
        ),
        "trial": await key("Trial", fleet=Fleet.SHARED, models=["bge-m3"], expires_at=now + 0.001),
        "leaked": await key("Leaked on a slide"),
    }
    await storage.keys.revoke(keys["leaked"].id, now=now)
    for number, model in enumerate(("smollm2-135m-instruct", None, "bge-m3")):
        gates = {"offline": number + 1, "region": 2}
        acme.portal.hub.journal.refused(f"req_{number}", keys["app"], model, "no_available_node", gates)
    await rotate_key(storage, keys["app"], now=now, overlap_s=DAY_S)
    await storage.organisations.set_limits(acme.organisation.id, Allowance(monthly_tokens=100_000_000))
    return keys


async def use(acme, keys, machines) -> None:
    """A month of requests, weekends off."""
    now = acme.portal.hub.clock()
    records = []
    for back in (day for day in range(29) if day % 7 not in (2, 3)):
        for number, (key, model) in enumerate((("app", "smollm2-135m-instruct"), ("batch", "bge-m3"))):
            records.append(
                UsageRecord(
                    request_id=f"req_{back}_{number}",
                    key_id=keys[key].id,
                    organisation_id=acme.organisation.id,
                    node_id=machines["busy"].node_id,
                    region="eu-de-fra",
                    model=model,
                    prompt_tokens=(29 - back) * 40_123 + 90_000 * (back % 5),
                    cached_tokens=12_000,
                    completion_tokens=(29 - back) * 7_001,
                    ttft_ms=80,
                    duration_ms=900,
                    outcome="cancelled" if back % 5 == 4 else "ok",
                    created_at=now - back * DAY_S - (back % 9) * 3_000,
                )
            )
    await acme.portal.hub.storage.usage.add(records)
    await acme.portal.hub.budgets.refresh()
