"""A node behind an HTTP proxy: it goes through the one it was told of, with its password, and no other."""

import logging
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from runtime.enrollment import HubApi
from runtime.errors import HubUnreachable

KEY = Ed25519PrivateKey.generate()
WRONG = "http://rack-7:hunter2@"


async def test_enrollment_tunnel_and_app_go_through_it(site: Any, gateway: Any, sse: Any, until: Any) -> None:
    async def answers(stream: Any, body: bytes) -> None:
        await stream.send_head(sse.head)
        await stream.send(sse.chunk("word"))
        await sse.end(stream)

    target = f"hub.example.org:{site.front.port}"
    async with HubApi.connect(site.front.url, ca_file=site.authority.file, proxy=gateway.url) as api:
        assert (await api.discover()).tunnel_urls == (f"wss://{target}/tunnel",)
        identity = await api.join(KEY, await site.join_token(), "attic", {})
    assert gateway.opened == [target]
    node = site.dial(identity.dialler(), proxy=gateway.url, script=answers)
    await until(lambda: site.offered(node), "the node is offered")
    assert gateway.opened == [target] * 2
    async with site.client(proxy=gateway.url) as app:
        body = {"model": sse.model, "messages": [{"role": "user", "content": "x"}], "stream": True}
        headers = {"authorization": f"Bearer {await site.key()}"}
        answer = await app.post("/v1/chat/completions", json=body, headers=headers)
    assert answer.text.endswith("data: [DONE]\n\n")
    assert set(gateway.asked) == {f"CONNECT {target} HTTP/1.1"}


async def test_a_wrong_password_is_said_without_the_password(
    site: Any, gateway: Any, until: Any, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    wrong = WRONG + gateway.address
    for url in (site.front.url, site.front.url.replace("https", "http")):
        async with HubApi.connect(url, ca_file=site.authority.file, proxy=wrong) as api:
            with pytest.raises(HubUnreachable) as caught:
                await api.discover()
        assert str(caught.value) == (
            f"the proxy does not let this machine through to {url} (407 Proxy Authentication Required): "
            "check proxy_url"
        )
    node = await site.node(proxy=wrong)
    await until(lambda: "waiting" in node.states, "the dial fails")
    [line, *_] = [record for record in caplog.records if record.message == "dial failed"]
    assert "407" in line.error
    assert gateway.opened == []
    assert "hunter2" not in "".join(str(vars(record)) for record in caplog.records if ours(record))


def ours(record: logging.LogRecord) -> bool:
    """What the node writes: the libraries' own chatter is cut off at warnings (runtime.logs)."""
    return (
        record.name.split(".")[0] not in ("websockets", "httpx", "httpcore") or record.levelno > logging.INFO
    )


async def test_a_proxy_that_is_away_is_told_from_a_hub_that_is(site: Any, make_front: Any) -> None:
    nobody = f"http://127.0.0.1:{make_front('nobody').port}"
    async with HubApi.connect(site.front.url, proxy=nobody) as api:
        with pytest.raises(
            HubUnreachable, match=r"cannot be reached through the proxy \(.+\): check proxy_url"
        ):
            await api.discover()


async def test_a_hub_that_the_proxy_does_not_know_is_said_to_be_the_proxys_word(gateway: Any) -> None:
    async with HubApi.connect("https://other.example", proxy=gateway.url) as api:
        with pytest.raises(HubUnreachable, match=r"not let this machine through .+\(502 Bad Gateway\)"):
            await api.discover()


@pytest.mark.parametrize("name", ["localhost"])
async def test_a_proxy_of_the_environment_is_passed_by(
    site: Any, gateway: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    for variable in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "WSS_PROXY"):
        monkeypatch.setenv(variable, gateway.url)
        monkeypatch.setenv(variable.lower(), gateway.url)
    async with HubApi.connect(site.front.url, ca_file=site.authority.file) as api:
        await api.discover()
    await site.joined()
    assert gateway.asked == []
    async with HubApi.connect(site.front.url, ca_file=site.authority.file, proxy=gateway.url) as api:
        await api.discover()
    assert len(gateway.opened) == 1, "it would have let them through"
