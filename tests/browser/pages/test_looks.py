"""Every page in every state worth seeing: pictures of it, no barrier in it, nothing beyond its edge."""

from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import playwright.async_api as pw
import pytest
import pytest_asyncio
from axe_playwright_python.async_playwright import Axe

from hub.keys import issue_key
from hub.policy import Fleet, Sharing, SharingKind, TrustClass
from hub.storage.records import Role, UsageRecord

pytestmark = [pytest.mark.browser, pytest.mark.asyncio(loop_scope="module")]

PICTURES = Path(__file__).parents[3] / "reports" / "screenshots"
WIDE, PHONE = {"width": 1280, "height": 800}, {"width": 390, "height": 844}
VIEWS = (("light", "wide", WIDE), ("light", "phone", PHONE), ("dark", "phone", PHONE), ("dark", "wide", WIDE))
# Everything once; where only colours and widths differ, what depends on them.
EXAMINED = {
    ("light", "wide"): {"reporter": "v2"},
    ("dark", "phone"): {"runOnly": ["color-contrast", "link-in-text-block", "target-size"]},
}
AXE = Axe()
NARROWEST = 320  # WCAG 2.2, 1.4.10: up to here a page reflows
DAY_S = 86_400
LONG = "workstation-of-the-computational-linguistics-group-second-floor-room-2.117-behind-the-printer"
HINDERING = ("serious", "critical")

State = Callable[["Scene"], Awaitable[pw.Page]]
STATES: dict[str, State] = {}


def state(build: State) -> State:
    """Add a state, named as its function."""
    STATES[build.__name__.replace("_", "-")] = build
    return build


@dataclass
class Scene:
    """A company with everything in it, and one with nothing."""

    portal: Any
    acme: Any
    nobody: Any
    machines: dict[str, Any]
    keys: dict[str, Any]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def scene(portal, new_team, pieces) -> AsyncIterator[Scene]:
    acme, nobody = await new_team("Acme Research"), await new_team("Newcomers")
    machines = await machines_of(acme, pieces)
    keys = await keys_of(acme)
    await use(acme, keys, machines)
    return Scene(portal, acme, nobody, machines, keys)


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
    return {"busy": busy, "idle": idle, "far": far, "old": old, "gone": gone}


async def keys_of(acme) -> dict[str, Any]:
    """Keys from plain to peculiar."""
    storage, now = acme.portal.hub.storage, acme.portal.hub.clock()

    async def key(name: str, **choices: Any) -> Any:
        return (await issue_key(storage, acme.organisation.id, name=name, now=now, **choices)).key

    many = frozenset(f"mistral-small-3.{n}-24b-instruct-2501" for n in range(6))
    keys = {
        "app": await key("Support assistant", regions=["eu"]),
        "batch": await key(
            "Nightly summaries of everything that the archive received during the day, in German",
            fleet=Fleet.ANY,
            regions=["eu-de", "eu-fr", "ch", "no"],
            minimum_trust=TrustClass.TRUSTED,
            models=many,
            expires_at=now + 30 * DAY_S,
        ),
        "trial": await key("Trial", fleet=Fleet.SHARED, models=["bge-m3"], expires_at=now + 0.001),
        "leaked": await key("Leaked on a slide"),
    }
    await storage.keys.revoke(keys["leaked"].id, now=now)
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
                    outcome="ok",
                    created_at=now - back * DAY_S,
                )
            )
    await acme.portal.hub.storage.usage.add(records)


@state
async def sign_in(scene: Scene) -> pw.Page:
    page = await scene.portal.open()
    await page.goto("/login")
    return page


@state
async def sign_in_refused(scene: Scene) -> pw.Page:
    page = await sign_in(scene)
    await page.get_by_label("E-mail").fill("nobody@acme.example")
    await page.get_by_label("Password").fill("not it")
    await page.get_by_role("button", name="Sign in").click()
    await page.get_by_role("alert").wait_for()
    return page


@state
async def overview_empty(scene: Scene) -> pw.Page:
    return await scene.nobody.visit("/")


@state
async def overview(scene: Scene) -> pw.Page:
    return await scene.acme.visit("/")


@state
async def nodes_empty(scene: Scene) -> pw.Page:
    return await scene.nobody.visit("/nodes")


@state
async def nodes(scene: Scene) -> pw.Page:
    return await scene.acme.visit("/nodes")


@state
async def nodes_of_everyone(scene: Scene) -> pw.Page:
    return await scene.nobody.visit("/nodes?of=all", Role.OPERATOR)


@state
async def node_busy(scene: Scene) -> pw.Page:
    return await scene.acme.visit(f"/nodes/{scene.machines['busy'].node_id}?saved=1", Role.OPERATOR)


@state
async def node_offline_unconfirmed(scene: Scene) -> pw.Page:
    return await scene.acme.visit(f"/nodes/{scene.machines['far'].node_id}")


@state
async def node_revoked(scene: Scene) -> pw.Page:
    return await scene.acme.visit(f"/nodes/{scene.machines['gone'].node_id}")


@state
async def node_for_members(scene: Scene) -> pw.Page:
    return await scene.acme.visit(f"/nodes/{scene.machines['idle'].node_id}", Role.MEMBER)


@state
async def node_error(scene: Scene) -> pw.Page:
    page = await scene.acme.visit(f"/nodes/{scene.machines['idle'].node_id}")
    await page.get_by_label("Named organisations").check()
    await page.get_by_label("Organisations it is shared with").fill("everybody")
    await page.get_by_role("button", name="Save").click()
    await page.get_by_role("alert").wait_for()
    return page


@state
async def node_revoke(scene: Scene) -> pw.Page:
    return await scene.acme.visit(f"/nodes/{scene.machines['busy'].node_id}/revoke")


@state
async def keys_empty(scene: Scene) -> pw.Page:
    return await scene.nobody.visit("/keys")


@state
async def keys(scene: Scene) -> pw.Page:
    return await scene.acme.visit(f"/keys?revoked={scene.keys['leaked'].id}")


@state
async def keys_error(scene: Scene) -> pw.Page:
    page = await scene.acme.visit("/keys")
    await page.get_by_label("Name", exact=True).fill(" ")
    await page.get_by_text("Models, trust and expiry").click()
    await page.get_by_label("Models it may use").fill("no/model!")
    await page.get_by_role("button", name="Create the key").click()
    await page.get_by_role("alert").wait_for()
    return page


@state
async def keys_for_members(scene: Scene) -> pw.Page:
    return await scene.nobody.visit("/keys", Role.MEMBER)


@state
async def key_created(scene: Scene) -> pw.Page:
    page = await scene.nobody.visit("/keys")
    await page.get_by_label("Name", exact=True).fill("Support assistant")
    await page.get_by_label("European Union").check()
    await page.get_by_role("button", name="Create the key").click()
    await page.get_by_role("heading", name="Support assistant is ready").wait_for()
    return page


@state
async def key_revoke(scene: Scene) -> pw.Page:
    return await scene.acme.visit(f"/keys/{scene.keys['batch'].id}/revoke")


@state
async def usage_empty(scene: Scene) -> pw.Page:
    return await scene.nobody.visit("/usage")


@state
async def usage(scene: Scene) -> pw.Page:
    return await scene.acme.visit("/usage")


@state
async def device(scene: Scene) -> pw.Page:
    return await scene.acme.visit("/device")


@state
async def device_unknown(scene: Scene) -> pw.Page:
    return await scene.acme.visit("/device?user_code=BCDFGHJK")


@state
async def device_approve(scene: Scene) -> pw.Page:
    code = await scene.acme.stranger("ber-workstation-7").ask()
    return await scene.acme.visit(f"/device?user_code={code}", Role.OPERATOR)


@state
async def device_approved(scene: Scene) -> pw.Page:
    page = await device_approve(scene)
    await page.get_by_role("button", name="Approve").click()
    await page.get_by_role("heading", name="Approved").wait_for()
    return page


@state
async def device_refused(scene: Scene) -> pw.Page:
    page = await device_approve(scene)
    await page.get_by_role("button", name="Refuse").click()
    await page.get_by_role("heading", name="Refused").wait_for()
    return page


@state
async def not_found(scene: Scene) -> pw.Page:
    return await scene.acme.visit("/nowhere")


@pytest.mark.parametrize("name", STATES)
async def test_a_page_is_fit_to_be_seen(name: str, scene: Scene) -> None:
    page = await STATES[name](scene)
    await page.evaluate(AXE.axe_script)
    for scheme, label, size in VIEWS:
        await page.emulate_media(color_scheme=scheme)
        await show_whole(page, size)
        await page.screenshot(
            path=PICTURES / f"{name}-{label}-{scheme}.png", caret="initial", animations="allow"
        )
        if rules := EXAMINED.get((scheme, label)):
            assert await barriers(page, rules) == []
    await page.set_viewport_size({"width": NARROWEST, "height": 640})
    assert await page.evaluate("document.documentElement.scrollWidth") <= NARROWEST


async def show_whole(page: pw.Page, size: dict[str, int]) -> None:
    """Make the window as high as the page, so that what sticks to its edges is where it belongs."""
    await page.set_viewport_size(size)
    height = await page.evaluate("document.documentElement.scrollHeight")
    await page.set_viewport_size(size | {"height": max(height, size["height"])})


async def barriers(page: pw.Page, rules: dict[str, Any]) -> list[str]:
    """What keeps people from using the page, each with its first place."""
    found = await page.evaluate("(rules) => axe.run({resultTypes: ['violations'], ...rules})", rules)
    return [
        f"{each['id']}: {each['nodes'][0]['html']} {each['nodes'][0]['failureSummary']}"
        for each in found["violations"]
        if each["impact"] in HINDERING
    ]
