"""Joining and leaving a Hub over real HTTP, with a Hub that answers as the test says."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from fastapi.responses import Response

from runtime.config import NodeConfig
from runtime.enrollment import DeviceGrant, HubApi, describe_machine, fingerprint
from runtime.errors import EnrollmentRefused, HubUnreachable, IdentityInvalid, NodeRevoked, NotEnrolled
from runtime.identity import Identity, IdentityStore
from runtime.membership import current_identity
from tunnel.identity import decode_public_key, encode_public_key


@pytest.fixture
def key() -> Ed25519PrivateKey:
    return Ed25519PrivateKey.generate()


class Waits:
    """Sleeps that take no time and are written down."""

    def __init__(self) -> None:
        self.seconds: list[float] = []

    async def __call__(self, seconds: float) -> None:
        self.seconds.append(seconds)


async def approve(hub: Any, key: Ed25519PrivateKey, waits: Waits) -> Identity:
    async with HubApi.connect(hub.url) as api:
        grant = await api.start_device(key, "attic", describe_machine(key, ()))
        return await api.wait_for_approval(key, grant, sleep=waits)


async def test_a_code_becomes_an_identity_at_the_hubs_pace(hub: Any, key: Ed25519PrivateKey) -> None:
    hub.answers = ["authorization_pending", "slow_down", "authorization_pending", "enrolled"]
    waits = Waits()
    identity = await approve(hub, key, waits)
    assert waits.seconds == [5, 5, 10, 10]
    assert (identity.hub.hub_url, identity.hub.name) == (hub.url, "attic")
    assert identity.credential.region == "eu-de"
    kind, asked = hub.asked[0]
    assert (kind, asked["name"]) == ("device", "attic")
    assert asked["machine"]["fingerprint"] == fingerprint(key)
    assert decode_public_key(asked["public_key"]) == key.public_key()
    assert "device_code=secret-device-code" in hub.asked[1][1]
    assert "grant_type=urn%3Aietf" in hub.asked[1][1]


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ("access_denied", "refused in the portal"),
        ("expired_token", "expired"),
        ("something_new", "something_new"),
    ],
)
async def test_a_no_is_a_no(hub: Any, key: Ed25519PrivateKey, answer: str, said: str) -> None:
    hub.answers = [answer]
    with pytest.raises(EnrollmentRefused, match=said):
        await approve(hub, key, Waits())


async def test_a_hub_that_is_away_for_a_while_is_waited_for(hub: Any, key: Ed25519PrivateKey) -> None:
    hub.answers = [Response(status_code=503), Response(status_code=502), "enrolled"]
    waits = Waits()
    await approve(hub, key, waits)
    assert waits.seconds == [5, 10, 20]


async def test_a_code_whose_time_is_up_is_not_polled_on(hub: Any, key: Ed25519PrivateKey) -> None:
    grant = DeviceGrant(device_code="x", user_code="y", verification_uri="z", expires_in=0)
    async with HubApi.connect(hub.url) as api:
        with pytest.raises(EnrollmentRefused, match="expired"):
            await api.wait_for_approval(key, grant)
    assert hub.asked == []


async def test_a_credential_that_another_key_signed_is_not_taken(hub: Any, key: Ed25519PrivateKey) -> None:
    hub.sign_with = Ed25519PrivateKey.generate()
    hub.answers = ["enrolled"]
    with pytest.raises(IdentityInvalid):
        await approve(hub, key, Waits())


async def test_leaving_is_signed_for_this_hub_and_short(hub: Any, key: Ed25519PrivateKey) -> None:
    hub.answers = ["enrolled"]
    identity = await approve(hub, key, Waits())
    async with HubApi.connect(hub.url) as api:
        await api.leave(identity)
        [token] = hub.left
        hub.left = [*hub.left, token]
    claims = jwt.decode(token, key.public_key(), algorithms=["EdDSA"], audience="hub_a")
    assert claims["sub"] == "node_a"
    assert claims["exp"] - claims["iat"] <= 60
    assert jwt.get_unverified_header(token)["typ"] == "porten-leave+jwt"


async def test_a_hub_that_forgot_the_node_says_so(
    hub: Any, key: Ed25519PrivateKey, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.answers = ["enrolled"]
    identity = await approve(hub, key, Waits())
    monkeypatch.setattr("runtime.enrollment.leave_token", lambda *_, **__: "same")
    async with HubApi.connect(hub.url) as api:
        await api.leave(identity)
        with pytest.raises(NodeRevoked):
            await api.leave(identity)


@pytest.fixture
async def changing(hub: Any, key: Ed25519PrivateKey) -> Identity:
    """An identity with a key that the Hub has not heard of."""
    hub.answers = ["enrolled"]
    identity = await approve(hub, key, Waits())
    return replace(identity, next_key=Ed25519PrivateKey.generate())


async def test_the_next_key_is_announced_in_a_word_of_the_current_one(hub: Any, changing: Identity) -> None:
    async with HubApi.connect(hub.url) as api:
        await api.announce(changing, changing.next_key)
    [token] = hub.announced
    claims = jwt.decode(token, changing.key.public_key(), algorithms=["EdDSA"], audience="hub_a")
    assert claims["sub"] == "node_a"
    assert claims["public_key"] == encode_public_key(changing.next_key.public_key())
    assert claims["exp"] - claims["iat"] <= 60
    assert jwt.get_unverified_header(token)["typ"] == "porten-rotate+jwt"


async def test_a_hub_that_has_gone_over_already_is_asked_in_a_word_of_the_next_key(
    hub: Any, changing: Identity
) -> None:
    hub.public_key = encode_public_key(changing.next_key.public_key())
    async with HubApi.connect(hub.url) as api:
        await api.announce(changing, changing.next_key)
    [token] = hub.announced
    jwt.decode(token, changing.next_key.public_key(), algorithms=["EdDSA"], audience="hub_a")


async def test_a_hub_that_knows_neither_key_or_cannot_change_one_says_so(
    hub: Any, changing: Identity
) -> None:
    async with HubApi.connect(hub.url) as api:
        hub.public_key = encode_public_key(Ed25519PrivateKey.generate().public_key())
        with pytest.raises(NodeRevoked):
            await api.announce(changing, changing.next_key)
        hub.rotates = False
        with pytest.raises(EnrollmentRefused, match="too old"):
            await api.announce(changing, changing.next_key)


async def test_what_is_no_hub_is_said_to_be_none(unused_port: int, engine: Any) -> None:
    async def script(request: Any, connection: Any) -> None:
        await connection.answer(200, b"<html>", "text/html")

    engine.script = script
    for url, said in (
        (f"http://127.0.0.1:{unused_port}", "cannot be reached"),
        (f"http://127.0.0.1:{engine.port}", "does not speak Porten"),
        ("http://[nonsense", "cannot be reached"),
    ):
        with pytest.raises(HubUnreachable, match=said):
            async with HubApi.connect(url) as api:
                await api.discover()


async def test_proxies_of_the_environment_are_not_used(hub: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    async with HubApi.connect(hub.url) as api:
        assert (await api.discover()).hub_id == "hub_a"
        assert api.clock_ahead_s is not None
        assert abs(api.clock_ahead_s) < 5


# the identity that `porten run` takes


@pytest.fixture
def config(tmp_path: Path, hub: Any) -> Callable[..., NodeConfig]:
    def make(**settings: object) -> NodeConfig:
        return NodeConfig(**{"data_dir": tmp_path, "hub_url": hub.url, **settings})

    return make


async def test_without_identity_and_token_there_is_a_remedy(config: Callable[..., NodeConfig]) -> None:
    with pytest.raises(NotEnrolled, match="porten login"):
        await current_identity(config())


async def test_a_join_token_enrolls_once(hub: Any, config: Callable[..., NodeConfig]) -> None:
    with pytest.raises(EnrollmentRefused, match="JoinToken"):
        await current_identity(config(join_token="pjt_bad"))
    first = await current_identity(config(join_token="pjt_good"))
    hub.tokens.clear()
    again = await current_identity(config(join_token="pjt_good"))
    assert again.token == first.token


async def test_new_tunnel_addresses_are_learnt_at_start(
    hub: Any, config: Callable[..., NodeConfig], tmp_path: Path
) -> None:
    await current_identity(config(join_token="pjt_good"))
    hub.tunnel_urls = ["ws://127.0.0.1:2/tunnel"]
    await current_identity(config())
    assert IdentityStore(tmp_path).load().hub.tunnel_urls == ("ws://127.0.0.1:2/tunnel",)


async def test_another_hub_at_the_address_changes_nothing(
    hub: Any, config: Callable[..., NodeConfig]
) -> None:
    before = await current_identity(config(join_token="pjt_good"))
    hub.hub_id, hub.tunnel_urls = "hub_evil", ["ws://evil.example/tunnel"]
    assert (await current_identity(config())).hub == before.hub


async def test_a_hub_that_is_away_changes_nothing(
    hub: Any, config: Callable[..., NodeConfig], unused_port: int
) -> None:
    before = await current_identity(config(join_token="pjt_good"))
    assert (await current_identity(config(hub_url=f"http://127.0.0.1:{unused_port}"))).hub == before.hub
