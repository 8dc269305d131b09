"""The pace an address is held to, bodies without end, and machines that go away in the middle of one."""

import asyncio
from urllib.parse import urlsplit

import pytest


async def test_an_address_that_asks_beyond_its_pace_is_told_when_to_come_back(machine, clock, refused):
    here, other = machine.at("2001:db8::1"), machine.at("2001:db8:0:1::1")
    for _ in range(20):
        await here.ask()
    answer = await machine.at("2001:db8::ffff").post("device_authorization", json=machine.says)
    assert (refused(answer), answer.headers["retry-after"]) == ((429, "slow_down"), "3")
    assert (await other.ask())["user_code"]
    clock.now += 3
    answer = await here.post("device_authorization", json=machine.says)
    assert (refused(answer), answer.headers["retry-after"]) == ((429, "slow_down"), "60"), "20 wait already"
    clock.now += 600
    assert (await here.ask())["user_code"]


async def test_polls_and_joins_share_a_faster_pace(machine, clock, refused):
    for _ in range(120):
        assert refused(await machine.poll("invented")) == (400, "expired_token")
    answer = await machine.poll("invented")
    assert (refused(answer), answer.headers["retry-after"]) == ((429, "slow_down"), "1")
    assert (await machine.join("pjt-x")).status_code == 429
    assert (await machine.at("192.0.2.2").poll("invented")).status_code == 400
    clock.now += 1
    assert (await machine.poll("invented")).status_code == 400


async def test_who_guesses_join_tokens_gets_no_answer_to_the_right_one(machine, join_token, clock, refused):
    token = await join_token()
    for number in range(20):
        assert (await machine.at(f"2001:db8::{number:x}").join("pjt-x")).status_code == 401
    answer = await machine.at("2001:db8::f:f").join(token)
    assert (refused(answer), answer.headers["retry-after"]) == ((429, "slow_down"), "600")
    assert (await machine.at("2001:db8:0:1::1").join(token)).status_code == 200


@pytest.mark.parametrize("endpoint", ["leave", "rotate"])
async def test_leaving_and_changing_the_key_are_paced_like_asking(machine, clock, endpoint):
    signed = {"authorization": "Bearer x"}
    answers = [(await machine.post(endpoint, headers=signed)).status_code for _ in range(21)]
    assert answers == [401] * 20 + [429]


@pytest.mark.parametrize("endpoint", ["device_authorization", "join", "token"])
async def test_a_body_beyond_the_limit_is_refused_while_it_comes(machine, endpoint, refused):
    async def endless():
        for _ in range(1_000):
            yield b" " * 16_384

    for content in (b" " * (32 * 1024 + 1), endless()):
        assert refused(await machine.post(endpoint, content=content)) == (413, "invalid_request")


@pytest.mark.parametrize("endpoint", ["device_authorization", "join", "token"])
async def test_a_machine_that_hangs_up_in_the_middle_is_no_fault_of_ours(bench, script, caplog, endpoint):
    answered = bench.hub.metrics.text()
    address = urlsplit(bench.url)
    _, writer = await asyncio.open_connection(address.hostname, address.port)
    writer.write(f"POST /enroll/v1/{endpoint} HTTP/1.1\r\nhost: x\r\ncontent-length: 99\r\n\r\n{{".encode())
    await writer.drain()
    writer.close()
    await script.until(lambda: bench.hub.metrics.text() != answered, "it is answered")
    assert "unexpected error" not in caplog.text
