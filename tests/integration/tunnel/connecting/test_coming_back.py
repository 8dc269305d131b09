"""A node that lost its Hub, or is sent away for a while, dials again by itself."""

from websockets.asyncio.client import ClientConnection

from tests.integration.tunnel.connecting.dialling import Recorded
from tunnel.backoff import Backoff


async def test_a_node_comes_back_by_itself_when_the_hub_does(new_hub, new_node) -> None:
    first = new_hub()
    await first.server.start("127.0.0.1", 0)
    port = first.server.port
    identity = first.know()
    node = new_node(first.url, identity, backoff=Recorded())
    node.start()
    await first.sessions.get()
    await node.reach("connected")
    await first.server.close()
    await node.reach("waiting")
    second = new_hub()
    second.accounts = first.accounts
    second.server._gate.authenticator = first.accounts
    await second.server.start("127.0.0.1", port)
    session = await second.sessions.get()
    assert session.generation == 2
    await node.reach("connected")
    await node.stop()
    await second.server.close()


async def test_goaway_says_when_to_come_back(hub_side, new_node) -> None:
    node = new_node(hub_side.url, hub_side.know(), backoff=Recorded())
    node.start()
    first = await hub_side.sessions.get()
    await first.goaway("credential", reconnect_in=0.0, deadline=5.0)
    second = await hub_side.sessions.get()
    assert second.generation == 2
    await first.closed.wait()
    assert first.close_reason == "drained"
    await node.stop()


async def test_a_connection_lost_before_the_first_byte_is_a_dial_that_failed(
    hub_side, new_node, monkeypatch
) -> None:
    connected = ClientConnection.connection_made

    def lost_at_once(self, transport) -> None:
        connected(self, transport)
        transport.abort()
        self.connection_lost(None)

    with monkeypatch.context() as patched:
        patched.setattr(ClientConnection, "connection_made", lost_at_once)
        node = new_node(hub_side.url, hub_side.know(), backoff=Backoff(lambda: 0.01))
        node.start()
        await node.reach("waiting")
    await node.reach("connected")
    await node.stop()
