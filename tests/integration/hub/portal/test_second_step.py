"""The second step at sign-in: set up, asked for, each code once, lost, switched off, asked of managers."""

import re
import time
from base64 import b32decode

import pytest
from cryptography.hazmat.primitives.hashes import SHA1
from cryptography.hazmat.primitives.twofactor.totp import TOTP

from benchmarks.stacks.portal_client import text_of
from hub.permissions import Role

START, CONFIRM, OFF = "/account/second-step", "/account/second-step/confirm", "/account/second-step/off"


class Phone:
    """An authenticator app, which knows the secret as it was typed in."""

    def __init__(self, page, clock):
        self.text = text_of(page, "secret")
        self._totp = TOTP(b32decode(self.text.replace(" ", "")), 6, SHA1(), 30)
        self._clock = clock

    def code(self, steps=0):
        return self._totp.generate(self._clock() + 30 * steps).decode()

    def wrong(self):
        right = {self.code(steps) for steps in range(-2, 3)}
        return next(
            code for code in ("000000", "111111", "222222", "333333", "444444", "555555") if code not in right
        )


@pytest.fixture
def still(clock, monkeypatch):
    """The clock stands but for what a test adds: a step must not end in the middle of it."""
    at = time.time()
    monkeypatch.setattr(type(clock), "__call__", lambda self: at + self.ahead)
    return clock


@pytest.fixture
def enrol(portal, still):
    """Sets a second step up as somebody signed in; returns the phone and the recovery codes."""

    async def enrol(browser):
        page = await browser.post(START, {"present": portal.password})
        phone = Phone(page.text, still)
        done = await browser.post(CONFIRM, {"code": phone.code()})
        assert done.status_code == 200, done.text
        codes = re.findall(r"\b[a-z0-9]{5}-[a-z0-9]{5}\b", text_of(done.text, "codes"))
        assert len(codes) == 10
        still.ahead += 30
        return phone, codes

    return enrol


async def first_step(portal, browser, role=Role.OWNER, **fields):
    return await browser.sign_in((await portal.account(role)).email, **fields)


async def second_step(browser, code, **fields):
    token = re.search(r'name="csrf_token" value="(\w+)"', (await browser.open("/login/code")).text)
    form = {"csrf_token": token[1] if token else "", "code": code} | fields
    return await browser.http.post("/login/code", data=form)


async def test_a_password_alone_opens_nothing_any_more(portal, owner, enrol, visit):
    phone, _ = await enrol(owner)
    browser = await visit()
    answer = await first_step(portal, browser, next="/keys")
    assert answer.status_code == 200
    assert "One more step" in answer.text
    assert 'value="/keys"' in answer.text
    assert browser.session is None
    assert (await browser.open("/")).headers["location"] == "/login?next=/"
    answer = await second_step(browser, phone.code(), next="/keys")
    assert (answer.status_code, answer.headers["location"]) == (303, "/keys")
    assert (await browser.open("/keys")).status_code == 200
    assert "porten-step" not in browser.http.cookies
    assert "way</span> password and code" in (await browser.open("/audit")).text


async def test_a_code_counts_once(portal, owner, enrol, visit):
    phone, _ = await enrol(owner)
    one, other = await visit(), await visit()
    await first_step(portal, one)
    await first_step(portal, other)
    code = phone.code()
    assert (await second_step(one, code)).status_code == 303
    answer = await second_step(other, code)
    assert answer.status_code == 401
    assert "wrong, was used before or is too old" in answer.text
    assert other.session is None


async def test_the_code_that_switched_it_on_signs_nobody_in(portal, owner, enrol, visit, still):
    phone, _ = await enrol(owner)
    browser = await visit()
    await first_step(portal, browser)
    assert (await second_step(browser, phone.code(-1))).status_code == 401


async def test_a_phone_may_be_a_step_ahead_and_no_more(portal, owner, enrol, visit):
    phone, _ = await enrol(owner)
    browser = await visit()
    await first_step(portal, browser)
    assert (await second_step(browser, phone.code(2))).status_code == 401
    assert (await second_step(browser, phone.code(1))).status_code == 303


async def test_guessing_codes_is_stopped_wherever_it_comes_from(portal, owner, enrol, visit, still):
    phone, _ = await enrol(owner)
    for number in range(6):
        browser = await visit(headers={"x-forwarded-for": f"192.0.2.{number}"})
        await first_step(portal, browser)
        answer = await second_step(browser, phone.wrong())
        assert answer.status_code == (401 if number < 5 else 429)
    assert 0 < int(answer.headers["retry-after"]) <= 900
    assert (await second_step(browser, phone.code())).status_code == 429
    await portal.hub.journal.flush()
    assert "Code at sign-in refused" in (await owner.open("/audit")).text
    still.ahead += 901
    await first_step(portal, browser)
    assert (await second_step(browser, phone.code())).status_code == 303


async def test_a_recovery_code_stands_in_once(portal, owner, enrol, visit):
    _, codes = await enrol(owner)
    browser = await visit()
    await first_step(portal, browser)
    assert (await second_step(browser, codes[0].upper().replace("-", " "))).status_code == 303
    assert "9 recovery codes left" in (await browser.open("/account")).text
    await browser.post("/logout")
    await first_step(portal, browser)
    assert (await second_step(browser, codes[0])).status_code == 401
    assert (await second_step(browser, codes[1])).status_code == 303
    assert "Recovery code used" in (await browser.open("/audit")).text


async def test_secrets_and_codes_are_nowhere_in_the_clear(portal, owner, enrol, tmp_path, caplog):
    caplog.set_level("DEBUG")
    phone, codes = await enrol(owner)
    stored = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
    said = " ".join(f"{log.getMessage()} {log.__dict__}" for log in caplog.records if log.name[:3] == "hub")
    for secret in (phone.text, phone.text.replace(" ", ""), *codes):
        assert secret.encode() not in stored
        assert secret not in said
        assert secret not in (await owner.open("/account")).text


async def test_it_counts_only_once_a_code_was_typed(portal, owner, visit, still):
    page = await owner.post(START, {"present": portal.password})
    phone = Phone(page.text, still)
    assert (await first_step(portal, await visit())).status_code == 303
    wrong = await owner.post(CONFIRM, {"code": phone.wrong()})
    assert wrong.status_code == 422
    assert text_of(wrong.text, "secret") == phone.text, "the same secret again"
    assert (await owner.post(CONFIRM, {"code": phone.code()})).status_code == 200


async def test_setting_it_up_asks_for_the_password(portal, owner):
    assert (await owner.open(START)).status_code == 200
    for present in ("", "wrong horse battery"):
        answer = await owner.post(START, {"present": present})
        assert answer.status_code == 422
        assert '<svg class="qr"' not in answer.text
    answer = await owner.post(CONFIRM, {"code": "123456"})
    assert "Begin anew" in answer.text


async def test_switching_it_off_asks_for_password_and_code(portal, owner, enrol, visit, still):
    phone, _ = await enrol(owner)
    for fields in (
        {"present": "wrong horse battery", "code": phone.code()},
        {"present": portal.password, "code": phone.wrong()},
        {"present": portal.password, "code": ""},
    ):
        assert (await owner.post(OFF, fields)).status_code == 422
    assert (await owner.post(START, {"present": portal.password})).status_code == 303
    assert "One more step" in (await first_step(portal, await visit())).text
    answer = await owner.post(OFF, {"present": portal.password, "code": phone.code()})
    assert answer.headers["location"] == "/account?done=second-step-off"
    assert (await first_step(portal, await visit())).status_code == 303


async def test_new_recovery_codes_end_the_old_ones(portal, owner, enrol, visit):
    phone, codes = await enrol(owner)
    page = await owner.post("/account/second-step/codes", {"present": portal.password, "code": phone.code()})
    fresh = text_of(page.text, "codes").split()
    assert len(fresh) == 10
    assert not set(fresh) & set(codes)
    browser = await visit()
    await first_step(portal, browser)
    assert (await second_step(browser, codes[0])).status_code == 401
    assert (await second_step(browser, fresh[0])).status_code == 303


async def test_an_administrator_resets_it_for_somebody_who_lost_it(portal, owner, enrol, visit, sign_in):
    member = await sign_in(Role.MEMBER)
    await enrol(member)
    account = await portal.account(Role.MEMBER)
    assert "Reset the second step" in (await owner.open(f"/members/{account.id}")).text
    assert (await owner.post(f"/members/{account.id}/reset-second-step")).status_code == 303
    assert (await member.open("/")).status_code == 303, "its sessions end"
    assert (await first_step(portal, await visit(), Role.MEMBER)).status_code == 303
    assert "Second step reset" in (await owner.open("/audit")).text


async def test_nobody_resets_their_own(portal, owner, enrol):
    await enrol(owner)
    account = await portal.account(Role.OWNER)
    answer = await owner.post(f"/members/{account.id}/reset-second-step")
    assert answer.status_code == 403
    assert "with a code" in answer.text
    assert await portal.hub.second_step.is_on(account.id)


async def test_between_the_steps_nothing_lasts_for_long(portal, owner, enrol, visit, still):
    phone, _ = await enrol(owner)
    browser = await visit()
    await first_step(portal, browser)
    still.ahead += 601
    answer = await second_step(browser, phone.code())
    assert answer.status_code in (400, 401)
    assert browser.session is None


async def test_another_password_ends_what_was_between_the_steps(portal, owner, enrol, visit):
    phone, _ = await enrol(owner)
    browser = await visit()
    await first_step(portal, browser)
    await portal.hub.accounts.change_password((await portal.account(Role.OWNER)).id, "another password")
    assert (await browser.open("/login/code")).headers["location"] == "/login"
    assert (await second_step(browser, phone.code())).status_code in (400, 401)
    assert browser.session is None


@pytest.mark.parametrize("cookie", ["", "x", "gAAAA" + "A" * 100])
async def test_a_made_up_cookie_is_nobody(visit, cookie):
    browser = await visit(cookies={"porten-step": cookie})
    assert (await browser.open("/login/code")).headers["location"] == "/login"


class TestAskedOfThoseWhoManage:
    @pytest.fixture
    def settings(self):
        return {"require_second_step": True}

    @pytest.mark.parametrize("role", [Role.OPERATOR, Role.OWNER, Role.ADMIN])
    async def test_who_manages_sets_it_up_before_anything_else(self, portal, sign_in, still, role, ids):
        browser = await sign_in(role)
        for path in ("/", "/nodes", "/keys", "/account", "/members", f"/nodes/{ids['node_id']}"):
            answer = await browser.open(path)
            assert (answer.status_code, answer.headers["location"]) == (303, START), path
        page = await browser.open(START)
        assert "This comes first" in page.text
        token = re.search(r'name="csrf_token" value="(\w+)"', page.text)[1]
        before = await portal.hub.storage.keys.list()
        form = {"csrf_token": token, "name": "x", "fleet": "own"}
        assert (await browser.http.post("/keys", data=form)).headers["location"] == START
        assert await portal.hub.storage.keys.list() == before
        shown = await browser.http.post(START, data={"csrf_token": token, "present": portal.password})
        code = Phone(shown.text, still).code()
        assert (await browser.http.post(CONFIRM, data={"csrf_token": token, "code": code})).status_code == 200
        assert (await browser.open("/")).status_code == 200

    @pytest.mark.parametrize("role", [Role.MEMBER, Role.AUDITOR])
    async def test_who_only_looks_is_not_asked(self, sign_in, role):
        assert (await (await sign_in(role)).open("/")).status_code == 200

    async def test_who_becomes_administrator_is_asked_at_once(self, portal, sign_in):
        member = await sign_in(Role.MEMBER)
        account = await portal.account(Role.MEMBER)
        await portal.hub.storage.members.change_role(account.id, Role.ADMIN, by=None)
        assert (await member.open("/")).headers["location"] == START


async def test_a_cookie_that_is_no_text_is_none_of_ours(portal, visit):
    stranger = await visit(headers={"cookie": b"porten-step=\xc3\xa9"})
    answer = await stranger.open("/login/code")
    assert (answer.status_code, answer.headers["location"]) == (303, "/login")
