"""Rows "SIGTERM of the Hub" and "SIGKILL of the Hub": it leaves, or is gone, and its nodes come back."""

import asyncio
from random import Random

from tunnel.backoff import Backoff
from tunnel.errors import ResetCode, SessionDraining, StreamReset
from tunnel.messages import Head

OK = Head(status=200, headers=())
STREAMS = 64
NODES = 12
ADMITTED_AT_ONCE = 4


async def test_a_hub_that_drains_under_load_truncates_nothing_and_refuses_nothing(
    start_hub, start_node, ask, answer, read_all, request_open
) -> None:
    """64 streams run and others keep coming, while the node moves from one Hub to the next."""
    release, begun = asyncio.Event(), asyncio.Semaphore(0)

    async def handler(stream) -> None:
        if stream.open.uid.startswith("short"):
            await answer(stream)
            return
        await stream.send_head(OK)
        await stream.send(b"first, ")
        begun.release()
        await release.wait()
        await stream.send(b"last", fin=True)

    first, second = await start_hub(least_smear_s=0.0), await start_hub()
    second.accounts = second.server._gate.authenticator = first.accounts
    node = start_node(first.url, first.know(), handler, more=(second.url,))
    old = await first.sessions.get()
    streams = [await old.open(request_open(f"long {number}")) for number in range(STREAMS)]
    for stream in streams:
        await stream.send(b"", fin=True)
        await begun.acquire()
    sessions, answers = [old], []
    load = [asyncio.create_task(keep_asking(ask, sessions, answers)) for _ in range(8)]
    closing = asyncio.create_task(first.server.close(drain_s=60))
    sessions.append(await second.sessions.get())
    await asyncio.gather(*load)
    assert set(answers) == {b"whole: {}"}
    assert not closing.done()
    release.set()
    assert await asyncio.gather(*map(read_all, streams)) == [b"first, last"] * STREAMS
    await closing
    assert first.server.sessions == frozenset()
    assert node.client.session.generation == sessions[-1].generation == 2


async def keep_asking(ask, sessions: list, answers: list[bytes]) -> None:
    """As a Hub does: where the node has left this session, or refuses, the newest is asked."""
    while len(answers) < 500 or len(sessions) == 1:
        try:
            answers.append(await ask(sessions[-1], "short"))
        except SessionDraining:
            continue
        except StreamReset as reset:
            if reset.code is not ResetCode.REFUSED:
                raise


async def test_a_hub_that_is_killed_has_its_nodes_back_one_after_the_other(
    start_hub, start_node, new_relay, ask, answer, request_open
) -> None:
    """No goodbye, then nobody there, then a Hub that admits few at a time: none is lost, no two in step."""
    begun, cancelled = asyncio.Semaphore(0), asyncio.Semaphore(0)

    async def handler(stream) -> None:
        if stream.open.uid != "held":
            await answer(stream)
            return
        await stream.send_head(OK)
        begun.release()
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.release()

    killed = await start_hub()
    relay = await new_relay(killed.server.port)
    nodes = [
        start_node(relay.url, killed.know(f"node_{n}"), handler, backoff=Backoff(Random(n).random))
        for n in range(NODES)
    ]
    for _ in nodes:
        await (await killed.sessions.get()).open(request_open("held"))
        await begun.acquire()
    relay.target = None
    await relay.cut()
    for node in nodes:
        await cancelled.acquire()
        await node.reach("waiting")
        await node.reach("waiting")
    restarted = await start_hub(handshake_burst=ADMITTED_AT_ONCE, handshakes_per_s=20.0, retry_after_s=1.0)
    restarted.accounts = restarted.server._gate.authenticator = killed.accounts
    relay.target = restarted.server.port
    clock = asyncio.get_running_loop().time
    back, moments = {}, []
    async with asyncio.timeout(60):
        while len(back) < NODES:
            session = await restarted.sessions.get()
            back[session.node_id] = session
            moments.append(clock())
    assert max(session.generation for session in back.values()) == 2 * NODES, "nobody came twice"
    assert moments[-1] - moments[0] > 0.2
    for session in back.values():
        assert await ask(session) == b"whole: {}"
