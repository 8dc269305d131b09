"""Letting a machine in: the code typed right and wrong, used twice, refused, too late, and forged fields."""

import pytest

from hub.policy import Sharing, SharingKind, TrustClass
from hub.storage.records import Role
from tunnel.identity import fingerprint

DEVICE_GRANT = "urn:ietf:params:oauth:grant-type:device_code"
GOOD = {"action": "approve", "name": "attic", "region": "eu-de", "sharing": "private"}


@pytest.fixture
def poll(portal, visit):
    """What a machine is told that asks whether somebody decided."""

    async def poll(grant):
        form = {"grant_type": DEVICE_GRANT, "device_code": grant["device_code"]}
        answer = await (await visit()).http.post("/enroll/v1/token", data=form)
        return answer.json().get("error", "enrolled")

    return poll


async def nodes(portal):
    return await portal.hub.storage.nodes.list()


async def test_the_machine_is_shown_before_it_is_let_in(portal, owner, ask, poll):
    devices = [{"kind": "cuda", "name": "H100", "memory_total": 80 * 2**30}]
    machine = {
        "os": "Linux",
        "arch": "arm64",
        "fingerprint": "ab:cd",
        "devices": devices,
        "agent": "porten/9",
    }
    grant = await ask("wanted", **machine)
    page = await owner.open("/device", params={"user_code": grant["user_code"]})
    waiting = await portal.hub.enrollment.find_by_user_code(grant["user_code"], "192.0.2.7")
    assert "ab:cd" not in page.text, "a machine's own word about its key counts for nothing"
    for shown in (
        "attic.example",
        "Linux on arm64",
        "NVIDIA GPU, H100, 80.0 GiB",
        fingerprint(waiting.public_key),
        "192.0.2.1",
        "porten/9",
    ):
        assert shown in page.text
    assert 'value="wanted"' in page.text
    assert "Acme" in page.text
    assert await nodes(portal) == [], "looking lets nobody in"
    answer = await owner.post("/device", GOOD | {"user_code": grant["user_code"]})
    assert (answer.status_code, "Germany, once the Hub" in answer.text) == (200, True)
    [node] = await nodes(portal)
    assert (node.name, node.region, node.region_confirmed) == ("attic", "eu-de", False)
    assert (node.trust, node.sharing) == (TrustClass.COMMUNITY, Sharing())
    assert node.organisation_id == (await portal.organisation()).id
    assert await poll(grant) == "enrolled"


async def test_the_address_the_machine_is_told_leads_to_it_after_signing_in(portal, visit, ask):
    grant, account, browser = await ask(), await portal.account(Role.OWNER), await visit()
    assert grant["verification_uri"] == f"{portal.hub.addresses.api_url}/device"
    answer = await browser.open(grant["verification_uri_complete"])
    page = await browser.open(answer.headers["location"])
    assert f"user_code={grant['user_code']}" in page.text
    answer = await browser.sign_in(account.email, next=f"/device?user_code={grant['user_code']}")
    assert "attic.example" in (await browser.open(answer.headers["location"])).text


@pytest.mark.parametrize("typed", ["{lower}", "{plain}", " {code} ", "{spaced}", "{dotted}"])
async def test_a_code_is_read_however_it_was_typed(owner, ask, typed):
    code = (await ask())["user_code"]
    plain = code.replace("-", "")
    text = typed.format(
        lower=code.lower(), plain=plain, code=code, spaced=" ".join(plain), dotted=".".join(plain)
    )
    page = await owner.open("/device", params={"user_code": text})
    assert "attic.example" in page.text
    assert f'value="{code}"' in page.text


@pytest.mark.parametrize("typed", ["BCDF-GHJK", "x", "BCDF-GHJ0", "B" * 500, "äöü", "BCDF GHJK BCDF"])
async def test_a_mistyped_code_is_said_to_be_unknown(owner, ask, typed):
    code = (await ask())["user_code"]
    for answer in (
        await owner.open("/device", params={"user_code": typed}),
        await owner.post("/device", GOOD | {"user_code": typed}),
        await owner.post("/device", {"action": "deny", "user_code": typed}),
    ):
        assert answer.status_code == 404
        assert "No machine is waiting under this code" in answer.text
    assert (await owner.open("/device", params={"user_code": code})).status_code == 200


async def test_no_code_asks_for_one(owner):
    for path in ("/device", "/device?user_code=", "/device?user_code=%20-%20"):
        page = await owner.open(path)
        assert page.status_code == 200
        assert "No machine is waiting" not in page.text
    assert (await owner.post("/device", GOOD)).status_code == 404


async def test_a_code_is_good_once(portal, owner, ask, poll):
    grant = await ask()
    form = GOOD | {"user_code": grant["user_code"]}
    assert (await owner.post("/device", form)).status_code == 200
    for answer in (await owner.post("/device", form), await owner.post("/device", form | {"action": "deny"})):
        assert answer.status_code == 404
    assert (await owner.open("/device", params={"user_code": grant["user_code"]})).status_code == 404
    assert len(await nodes(portal)) == 1
    assert await poll(grant) == "enrolled"
    assert await poll(grant) == "expired_token"


async def test_a_refused_machine_is_told_so_and_cannot_be_let_in_after(portal, owner, ask, poll):
    grant = await ask()
    answer = await owner.post("/device", {"action": "deny", "user_code": grant["user_code"]})
    assert (answer.status_code, "Refused" in answer.text) == (200, True)
    assert await poll(grant) == "access_denied"
    assert (await owner.post("/device", GOOD | {"user_code": grant["user_code"]})).status_code == 404
    assert await nodes(portal) == []


async def test_a_code_too_old_lets_nobody_in(portal, owner, ask, poll, clock):
    grant = await ask()
    assert grant["expires_in"] == 600
    clock.ahead += 599
    assert (await owner.open("/device", params={"user_code": grant["user_code"]})).status_code == 200
    clock.ahead += 1
    assert (await owner.post("/device", GOOD | {"user_code": grant["user_code"]})).status_code == 404
    assert await poll(grant) == "expired_token"
    assert await nodes(portal) == []


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"region": "mars"}, "There is no region"),
        ({"region": "EU-DE"}, "There is no region"),
        ({"name": ""}, "Give the node a name"),
        ({"name": "x" * 101}, "at most 100 characters"),
        ({"sharing": "everybody"}, "Choose who may use the node"),
        ({"sharing": "organisations"}, "Name at least one organisation"),
        ({"sharing": "organisations", "organisations": "org_" + "a" * 20}, "there is no organisation"),
        ({"action": "save"}, "Choose to approve or to refuse"),
        ({"action": ""}, "Choose to approve or to refuse"),
    ],
)
async def test_a_forged_field_lets_nobody_in_and_the_machine_waits_on(portal, owner, ask, poll, wrong, said):
    grant = await ask()
    form = GOOD | {"user_code": grant["user_code"]}
    answer = await owner.post("/device", form | wrong)
    assert answer.status_code == 422
    assert said in answer.text
    assert "attic.example" in answer.text
    assert await nodes(portal) == []
    assert await poll(grant) == "authorization_pending"
    assert (await owner.post("/device", form)).status_code == 200


async def test_what_is_left_out_is_the_safe_side(portal, owner, ask):
    code = (await ask("wanted"))["user_code"]
    assert (await owner.post("/device", {"action": "approve", "user_code": code})).status_code == 200
    [node] = await nodes(portal)
    assert (node.name, node.region, node.trust, node.sharing) == (
        "wanted",
        None,
        TrustClass.COMMUNITY,
        Sharing(),
    )


async def test_a_machine_without_a_region_is_warned_of_where_keys_name_regions(portal, owner, ask):
    codes = [(await ask())["user_code"] for _ in range(2)]
    await portal.key()
    await portal.key("Other", regions=["eu"])
    page = await owner.open("/device", params={"user_code": codes[0]})
    assert "Choose the region" not in page.text
    await portal.key(regions=["eu"])
    page = await owner.open("/device", params={"user_code": codes[0]})
    assert "1 key of Acme names regions, and never uses a machine without one" in page.text
    forms = [
        {"action": "approve", "user_code": codes[0], "region": ""},
        {"action": "approve", "user_code": codes[1], "region": "us"},
    ]
    warned = ["It has no region." in (await owner.post("/device", form)).text for form in forms]
    assert warned == [True, False]


async def test_an_operators_choices_count_at_once(portal, operator, ask):
    other = await portal.organisation("Other")
    wish = {"trust": "trusted", "sharing": "organisations", "organisations": f" {other.id}\r\n"}
    answer = await operator.post("/device", GOOD | wish | {"user_code": (await ask())["user_code"]})
    assert "once the Hub" not in answer.text
    [node] = await nodes(portal)
    assert (node.region_confirmed, node.trust) == (True, TrustClass.TRUSTED)
    assert node.sharing == Sharing(SharingKind.ORGANISATIONS, frozenset({other.id}))


async def test_guessing_codes_is_stopped_for_right_ones_too(owner, ask, clock):
    code = (await ask())["user_code"]
    for _ in range(10):
        assert (await owner.open("/device", params={"user_code": "BCDF-BCDF"})).status_code == 404
    for answer in (
        await owner.open("/device", params={"user_code": code}),
        await owner.post("/device", GOOD | {"user_code": code}),
    ):
        assert answer.status_code == 429
        assert 1 <= int(answer.headers["retry-after"]) <= 600
        assert "Too many attempts" in answer.text
    clock.ahead += 601
    code = (await ask())["user_code"]
    assert (await owner.open("/device", params={"user_code": code})).status_code == 200
