"""One TLS name for everything: who reaches the Hub under it, as whom, and what is kept from the world."""

import logging
from typing import Any

import httpx
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from websockets.asyncio.client import connect

from benchmarks.stacks.portal_client import read_forms
from runtime.enrollment import HubApi, describe_machine
from runtime.errors import HubUnreachable
from runtime.hub_http import tls_context
from tunnel.identity import encode_public_key

MIB = 1024 * 1024
KEY = Ed25519PrivateKey.generate()


async def test_a_node_enrolls_dials_and_leaves_by_the_one_name(site: Any, until: Any) -> None:
    async with HubApi.connect(site.front.url, ca_file=site.authority.file) as api:
        told = await api.discover()
        assert told.tunnel_urls == (site.front.tunnel_url,)
        identity = await api.join(KEY, await site.join_token(), "attic", describe_machine(KEY, ()))
        node = site.dial(identity.dialler(), *identity.hub.tunnel_urls)
        await until(lambda: site.offered(node), "the node is offered")
        await api.leave(identity)
    await until(lambda: site.here(identity.hub.node_id) is None, "it is let go")


async def test_the_hub_sees_apps_and_nodes_by_their_own_address(site: Any, monkeypatch: Any) -> None:
    """Addresses that they invent count for nothing."""
    invented = {"x-forwarded-for": "192.0.2.66", "forwarded": "for=192.0.2.66", "x-real-ip": "192.0.2.66"}
    asked = {"public_key": encode_public_key(KEY.public_key()), "name": "attic", "machine": {}}
    async with site.client(local_address="127.0.0.2") as app:
        answer = await app.post("/enroll/v1/device_authorization", json=asked, headers=invented)
    assert answer.status_code == 200
    assert answer.json()["verification_uri"] == f"{site.front.url}/device"
    waiting = site.hub.storage.enrollments.count_pending
    now = site.hub.clock()
    assert [await waiting(address, now=now) for address in ("127.0.0.2", "192.0.2.66")] == [1, 0]

    def connect_from_elsewhere(url: str, **options: Any) -> Any:
        headers = dict(options.pop("additional_headers")) | {"X-Forwarded-For": "192.0.2.66"}
        return connect(url, additional_headers=headers, local_addr=("127.0.0.3", 0), **options)

    monkeypatch.setattr("tunnel.dial.connect", connect_from_elsewhere)
    node = await site.joined()
    assert site.here(node.identity.node_id).remote_address == "127.0.0.3"


async def test_the_portal_signs_in_with_cookies_that_never_leave_tls(site: Any, password: str) -> None:
    account = await site.operator()
    async with site.client() as browser:
        page = await browser.get("/login")
        assert "content-encoding" not in page.headers
        [form] = [form for form in read_forms(page.text) if "password" in form.fields]
        fields = form.fields | {"email": account.email, "password": password}
        answer = await browser.post("/login", data=fields)
        assert answer.status_code == 303
        [session] = [each for each in browser.cookies.jar if each.name.endswith("porten-session")]
        assert session.name == "__Host-porten-session"
        assert session.secure
        assert session.path == "/"
        assert account.email in (await browser.get("/")).text


async def test_an_authority_that_is_not_known_ends_enrollment_in_words(site: Any, stranger: Any) -> None:
    for ca_file in (stranger, None):
        async with HubApi.connect(site.front.url, ca_file=ca_file) as api:
            with pytest.raises(HubUnreachable) as caught:
                await api.discover()
        assert f"the certificate of {site.front.url} is not trusted: set hub_ca_file" in str(caught.value)


async def test_an_authority_that_is_not_known_keeps_a_node_dialling_and_is_in_its_log(
    site: Any, stranger: Any, until: Any, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    node = await site.node(context=tls_context(stranger))
    await until(lambda: "waiting" in node.states, "the dial fails")
    [line, *_] = [record for record in caplog.records if record.message == "dial failed"]
    assert "certificate verify failed" in line.error
    assert "connected" not in node.states


async def test_a_name_that_is_not_in_the_certificate_is_refused(site: Any) -> None:
    """nginx shows the certificate that it has, Caddy none."""
    url = site.front.url.replace("localhost", "127.0.0.1")
    async with HubApi.connect(url, ca_file=site.authority.file) as api:
        with pytest.raises(HubUnreachable, match=r"not trusted|TLSV1_ALERT"):
            await api.discover()


@pytest.mark.parametrize("settings", [{"body_limit_bytes": 4 * MIB}])
async def test_a_body_beyond_the_limit_is_refused_by_the_hub_in_its_words(site: Any) -> None:
    headers = {"authorization": f"Bearer {await site.key()}"}
    async with site.client() as app:
        answer = await app.post("/v1/chat/completions", content=b" " * 5 * MIB, headers=headers)
    assert answer.status_code == 413
    assert answer.json()["error"]["code"] == "request_too_large"


async def test_plain_http_leads_to_tls(site: Any) -> None:
    url = f"http://localhost:{site.front.plain_port}/keys?x=1"
    async with httpx.AsyncClient(trust_env=False) as browser:
        answer = await browser.get(url, headers={"host": "localhost"})
    assert answer.is_redirect
    assert answer.headers["location"] == "https://localhost/keys?x=1"


async def test_the_world_sees_no_figures_and_is_told_to_stay_on_tls(site: Any) -> None:
    async with site.client() as app:
        for path in ("/metrics", "/%6detrics", "//metrics", "/./metrics", "/x/../metrics"):
            answer = await app.get(httpx.URL(site.front.url).copy_with(raw_path=path.encode()))
            assert answer.status_code in (404, 308), path
            assert "porten_hub" not in answer.text
        answer = await app.get("/healthz")
        assert answer.status_code == 200
        assert answer.headers["strict-transport-security"] == "max-age=31536000"


async def test_the_tunnels_path_and_no_other_leads_to_the_tunnels_port(site: Any) -> None:
    async with site.client() as app:
        answer = await app.get("/tunnel")
        assert (answer.status_code, answer.text) == (401, "unknown node\n")
        for path in ("/tunnel/", "/tunnels", "/x/tunnel"):
            assert (await app.get(path)).status_code == 404


async def test_nothing_secret_is_in_the_proxys_logs(site: Any, sse: Any) -> None:
    async def answers(stream: Any, body: bytes) -> None:
        await stream.send_head(sse.head)
        await stream.send(sse.chunk("completed-words"))
        await sse.end(stream)

    await site.joined(script=answers)
    key = await site.key()
    body = {"model": sse.model, "messages": [{"role": "user", "content": "prompted-words"}], "stream": True}
    async with site.client() as app:
        headers = {"authorization": f"Bearer {key}"}
        answer = await app.post("/v1/chat/completions", json=body, headers=headers)
        assert "completed-words" in answer.text
        await app.get(
            "/device?user_code=BCDF-GHJK", headers={"cookie": "__Host-porten-session=secret-cookie"}
        )
    for secret in (key, "prompted-words", "completed-words", "BCDF-GHJK", "secret-cookie"):
        assert secret not in site.front.said
