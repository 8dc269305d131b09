"""What the tunnel tells of itself, on both sides."""

import asyncio

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from tunnel.errors import ResetCode, StreamReset
from tunnel.lag import watch_lag
from tunnel.messages import Head
from tunnel.metrics import TunnelMetrics

OK = Head(status=200, headers=())


@pytest.fixture
def metrics():
    registry = CollectorRegistry()
    return TunnelMetrics("porten_hub", registry), registry


def value(registry, name: str, **labels: str) -> float | None:
    return registry.get_sample_value(f"porten_hub_{name}", labels)


async def until(condition) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.005)


async def test_a_session_from_its_handshake_to_its_end(metrics, new_hub, new_node, request_open) -> None:
    told, registry = metrics
    hub_side = new_hub(heartbeat_s=0.2)
    hub_side.server._stats = told.stats
    await hub_side.server.start("127.0.0.1", 0)
    told.watch(hub_side.server.load)
    node = new_node(hub_side.url, hub_side.know())
    hold = asyncio.Event()

    async def handler(stream) -> None:
        await stream.send_head(OK)
        await hold.wait()

    node.handler = handler
    node.start()
    session = await hub_side.sessions.get()
    stream = await session.open(request_open())
    await stream.head()
    assert value(registry, "tunnel_sessions", state="live") == 1
    assert value(registry, "tunnel_streams") == 1
    assert value(registry, "tunnel_reserved_bytes") > 0
    await until(lambda: value(registry, "tunnel_rtt_seconds_count"))
    stream.reset(ResetCode.CANCELLED)
    await node.stop()
    await hub_side.closed.get()
    assert value(registry, "tunnel_handshakes_total", result="welcomed") == 1
    assert value(registry, "tunnel_head_seconds_count") == 1
    assert value(registry, "tunnel_resets_total", by="sent", code="NO_ERROR") == 1
    assert value(registry, "tunnel_session_ends_total", reason="going_away") == 1
    assert value(registry, "tunnel_reserved_bytes") == 0
    assert value(registry, "tunnel_sessions", state="live") == 0
    await hub_side.server.close()


async def test_refusals_and_stalls_are_counted(metrics, link, request_open) -> None:
    told, registry = metrics
    link.node._protocol.stats = told.stats
    release = asyncio.Event()

    async def handler(stream) -> None:
        await stream.send_head(OK)
        await stream.send(bytes(600_000), fin=True)

    link.handler = handler
    stream = await link.hub.open(request_open())
    await stream.head()
    await until(lambda: stream._state.window.received == stream._state.window.granted)
    assert release.is_set() is False
    while await stream.receive() is not None:
        pass
    assert value(registry, "tunnel_credit_stall_seconds_total") > 0


async def test_what_is_exposed_names_no_node_and_no_address(metrics, new_hub, new_node) -> None:
    told, registry = metrics
    hub_side = new_hub()
    hub_side.server._stats = told.stats
    await hub_side.server.start("127.0.0.1", 0)
    told.watch(hub_side.server.load)
    node = new_node(hub_side.url, hub_side.know("node_secret"))
    node.start()
    await hub_side.sessions.get()
    text = generate_latest(registry).decode()
    assert "node_secret" not in text
    assert "127.0.0.1" not in text
    await node.stop()
    await hub_side.server.close()


async def test_a_blocked_loop_is_seen() -> None:
    seen: list[float] = []
    watching = asyncio.create_task(watch_lag(seen.append, every_s=0.01))
    await until(lambda: seen)
    import time

    time.sleep(0.2)
    await until(lambda: any(late > 0.1 for late in seen))
    watching.cancel()


async def test_a_reset_from_the_other_side_is_counted_by_its_code(metrics, link, request_open) -> None:
    told, registry = metrics
    link.hub._protocol.stats = told.stats

    async def handler(stream) -> None:
        stream.reset(ResetCode.ENGINE_ERROR, "no")

    link.handler = handler
    stream = await link.hub.open(request_open())
    with pytest.raises(StreamReset):
        await stream.head()
    assert value(registry, "tunnel_resets_total", by="received", code="ENGINE_ERROR") == 1
