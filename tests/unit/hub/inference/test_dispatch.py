"""One request on its way: choosing, trying elsewhere, queueing, and the account of it."""

import asyncio
from dataclasses import replace

import pytest

from hub.changes import KeyChanged, NodeChanged, RegionsChanged
from hub.errors import RequestFailed, StorageUnavailable
from hub.finding import MAX_PASSED_OVER
from hub.policy import Narrowing
from tunnel.errors import ResetCode, SessionClosed, StreamReset, TooManyStreams


async def admitted(world, **changes):
    secret, _key = world.add_key(**changes)
    return await world.admission.authenticate(f"Bearer {secret}")


async def loaded(world, *node_ids, **changes):
    for node_id in node_ids:
        world.add_node(node_id, **changes)
    await world.registry.facts.load()


async def read_all(dispatch):
    stream, piece = await dispatch.connect()
    body = b""
    while piece is not None and not stream.finished:
        body += piece
        piece = await stream.receive()
    dispatch.finish()
    return body + (piece or b"")


async def refusal_of(dispatch):
    with pytest.raises(RequestFailed) as caught:
        await dispatch.connect()
    dispatch.fail(caught.value.code)
    return caught.value


async def test_answer_is_relayed_and_accounted_before_its_end(world, fakes):
    await loaded(world, "n1")
    session = world.connect("n1", answer=lambda _open: fakes.stream(b"one", b"two"))
    dispatch = world.begin(await admitted(world), request_id="req_1")

    assert await read_all(dispatch) == b"onetwo"

    (record,) = world.records
    assert (record.outcome, record.node_id, record.region) == ("ok", "n1", "eu-de")
    assert (record.prompt_tokens, record.cached_tokens, record.completion_tokens) == (3, 1, 2)
    assert record.ttft_ms is not None
    assert session.opened[0].uid == "req_1"
    assert session.streams[0].sent == b"{}"
    dispatch.close()
    assert len(world.records) == 1
    assert session.streams[0].was_reset is None


@pytest.mark.parametrize(
    "code",
    [
        ResetCode.REFUSED,
        ResetCode.OVERLOADED,
        ResetCode.SESSION_LOST,
        ResetCode.LOAD_FAILED,
        ResetCode.TICKET_REFUSED,
    ],
)
async def test_before_the_first_byte_another_permitted_node_is_tried(world, fakes, code):
    await loaded(world, "n1", "n2")
    tried = []

    def answer(request):
        tried.append(request.uid)
        return fakes.stream(code) if len(tried) == 1 else fakes.stream(b"ok")

    for node_id in ("n1", "n2"):
        world.connect(node_id, answer=answer)
    dispatch = world.begin(await admitted(world), request_id="req_1")

    assert await read_all(dispatch) == b"ok"
    assert tried == ["req_1", "req_1.2"]
    assert [record.outcome for record in world.records] == ["ok"]


async def test_another_node_is_tried_after_the_head_too(world, fakes):
    await loaded(world, "n1", "n2")
    scripts = [fakes.stream(b"never", ResetCode.SESSION_LOST), fakes.stream(b"ok")]
    scripts[0].pieces = [ResetCode.SESSION_LOST]
    scripts[0].head = scripts[1].head
    for node_id in ("n1", "n2"):
        world.connect(node_id, answer=lambda _open: scripts.pop(0))

    assert await read_all(world.begin(await admitted(world))) == b"ok"


@pytest.mark.parametrize(
    ("code", "outcome"), [(ResetCode.WARMING, "model_warming"), (ResetCode.DEADLINE, "deadline_exceeded")]
)
async def test_what_is_the_requests_own_is_not_tried_elsewhere(world, fakes, code, outcome):
    await loaded(world, "n1", "n2")
    sessions = [world.connect(node_id, answer=lambda _open: fakes.stream(code)) for node_id in ("n1", "n2")]

    assert (await refusal_of(world.begin(await admitted(world)))).code == outcome
    assert sum(len(session.opened) for session in sessions) == 1
    assert [record.outcome for record in world.records] == [outcome]


async def test_at_most_three_nodes_are_tried_and_the_last_failure_is_told(world, fakes):
    await loaded(world, "n1", "n2", "n3", "n4")
    sessions = [
        world.connect(f"n{i}", answer=lambda _open: fakes.stream(ResetCode.SESSION_LOST))
        for i in (1, 2, 3, 4)
    ]

    assert (await refusal_of(world.begin(await admitted(world)))).code == "node_lost"
    assert sum(len(session.opened) for session in sessions) == 3


async def test_a_node_whose_engine_lacks_the_endpoint_is_passed_over(world, fakes):
    await loaded(world, "n1", "n2", "n3")
    mute = [world.connect(node_id) for node_id in ("n1", "n2")]
    speaking = world.connect("n3", report=fakes.report(capabilities=("chat", "responses")))

    for number in range(8):
        dispatch = world.begin(await admitted(world), path="/v1/responses", offered_as="responses")
        assert await read_all(dispatch) == b"hello"
        assert len(speaking.opened) == number + 1
    assert [session.opened for session in mute] == [[], []]


async def test_where_no_engine_has_the_endpoint_that_is_told_and_not_that_it_is_full(world, fakes):
    await loaded(world, "n1", "n2")
    sessions = [world.connect(node_id) for node_id in ("n1", "n2")]
    failure = await refusal_of(world.begin(await admitted(world), path="/v1/messages", offered_as="messages"))
    assert failure.code == "unsupported_parameter"
    assert "/v1/messages" in failure.message
    assert [session.opened for session in sessions] == [[], []]
    assert world.records == []


async def test_a_full_node_that_has_the_endpoint_is_waited_for(world, fakes):
    await loaded(world, "n1", "n2")
    world.connect("n1")
    world.connect("n2", report=fakes.report(capabilities=("chat", "messages"), running=10_000))
    dispatch = world.begin(await admitted(world), path="/v1/messages", offered_as="messages")
    assert (await refusal_of(dispatch)).code == "overloaded"


async def test_a_crowd_of_nodes_without_the_endpoint_is_not_gone_through(world, fakes):
    names = [f"n{number}" for number in range(MAX_PASSED_OVER + 10)]
    await loaded(world, *names)
    for name in names:
        world.connect(name)
    dispatch = world.begin(await admitted(world), path="/v1/messages", offered_as="messages")
    assert (await refusal_of(dispatch)).code == "unsupported_parameter"


async def test_pictures_are_refused_unless_the_model_sees(world, fakes):
    await loaded(world, "n1")
    world.connect("n1")
    with pytest.raises(RequestFailed) as caught:
        world.begin(await admitted(world), needs_vision=True)
    assert (caught.value.code, caught.value.param) == ("unsupported_parameter", "messages")


async def test_once_told_the_node_stays_the_same(world, fakes):
    await loaded(world, "n1", "n2")
    for node_id in ("n1", "n2"):
        world.connect(node_id, answer=lambda _open: fakes.stream(ResetCode.SESSION_LOST))
    dispatch = world.begin(await admitted(world))
    dispatch.pinned = True

    assert (await refusal_of(dispatch)).code == "node_lost"


async def test_what_an_engine_may_have_died_of_is_handed_to_no_other(world, fakes):
    await loaded(world, "n1", "n2")
    tried = []

    def answer(request):
        tried.append(request.uid)
        return fakes.stream(ResetCode.ENGINE_ERROR)

    for node_id in ("n1", "n2"):
        world.connect(node_id, answer=answer)
    assert (await refusal_of(world.begin(await admitted(world)))).code == "engine_error"
    assert len(tried) == 1


async def test_after_the_first_byte_a_failure_is_final(world, fakes):
    await loaded(world, "n1", "n2")
    for node_id in ("n1", "n2"):
        world.connect(node_id, answer=lambda _open: fakes.stream(b"first", ResetCode.ENGINE_ERROR))
    dispatch = world.begin(await admitted(world))

    stream, piece = await dispatch.connect()
    assert piece == b"first"
    with pytest.raises(StreamReset):
        await stream.receive()


@pytest.mark.parametrize("error", [SessionClosed("gone"), TooManyStreams("full")])
async def test_a_session_that_will_not_open_is_passed_over(world, error):
    await loaded(world, "n1", "n2")
    world.connect("n1", refusal=error)
    world.connect("n2", refusal=error)

    failure = await refusal_of(world.begin(await admitted(world)))
    assert failure.code == ("overloaded" if isinstance(error, TooManyStreams) else "no_available_node")
    world.connect("n2")
    assert await read_all(world.begin(await admitted(world))) == b"hello"


async def test_errors_of_the_node_come_in_our_words(world, fakes):
    await loaded(world, "n1")
    body = b'{"error":{"message":"loading, 40 %","type":"service_unavailable","code":"model_warming"}}'
    world.connect("n1", answer=lambda _open: fakes.stream(body, status=503, headers=(("retry-after", "5"),)))

    failure = await refusal_of(world.begin(await admitted(world)))
    assert (failure.code, failure.message, failure.retry_after) == ("model_warming", "loading, 40 %", 5.0)


async def test_a_full_node_is_waited_for_in_turn(world, fakes):
    await loaded(world, "n1")
    world.dispatcher.places.queue_timeout_s = 5
    world.connect("n1", report=fakes.report(running=0))
    key = await admitted(world)
    first = [world.begin(key) for _ in range(8)]
    for dispatch in first:
        await dispatch.connect()
    waiting = asyncio.create_task(world.begin(key).connect())
    await asyncio.sleep(0)
    assert not waiting.done()

    first[0].finish()
    first[0].close()
    _stream, piece = await waiting
    assert piece == b"hello"


async def test_a_node_that_is_about_to_report_is_waited_for(world):
    await loaded(world, "n1")
    world.dispatcher.places.queue_timeout_s = 5
    session = world.welcome("n1")
    waiting = asyncio.create_task(world.begin(await admitted(world)).connect())
    await asyncio.sleep(0)
    assert not waiting.done()

    world.report(session)
    _stream, piece = await waiting
    assert piece == b"hello"


async def test_a_node_that_never_reports_is_not_waited_for_long(world):
    await loaded(world, "n1")
    world.welcome("n1")
    failure = await refusal_of(world.begin(await admitted(world)))
    assert failure.code == "no_available_node"
    assert "1 just connecting" in failure.message


@pytest.mark.parametrize("change", [NodeChanged("n1"), RegionsChanged()])
async def test_what_is_being_read_again_is_waited_for(world, change):
    """A node is renamed, the tree has another branch: a request of that moment is answered all the same."""
    await loaded(world, "n1")
    world.connect("n1")
    world.dispatcher.places.queue_timeout_s = 60
    world.turns = 5
    caller = await admitted(world, regions=frozenset({"eu"}))
    world.changes.publish(change)
    async with asyncio.timeout(5):
        _stream, piece = await world.begin(caller).connect()
    assert piece == b"hello"


@pytest.mark.parametrize("change", [NodeChanged("n1"), RegionsChanged()])
async def test_what_cannot_be_read_is_not_waited_for(world, change):
    await loaded(world, "n1")
    world.connect("n1")
    world.dispatcher.places.queue_timeout_s = 60
    caller = await admitted(world, regions=frozenset({"eu"}))
    world.error = StorageUnavailable("the database is down")
    world.changes.publish(change)
    async with asyncio.timeout(5):
        failure = await refusal_of(world.begin(caller))
    assert failure.code == "no_available_node"


async def test_the_queue_has_an_end(world, fakes):
    await loaded(world, "n1")
    session = world.connect("n1", report=fakes.report(running=8))

    failure = await refusal_of(world.begin(await admitted(world)))
    assert failure.code == "overloaded"
    assert failure.retry_after
    assert not session.opened
    assert world.records == []


async def test_a_key_revoked_while_its_request_waits_is_refused(world, fakes):
    await loaded(world, "n1")
    world.dispatcher.places.queue_timeout_s = 5
    session = world.connect("n1", report=fakes.report(running=8))
    key, told = await admitted(world), []
    world.dispatcher.places.on_refused = lambda *refusal: told.append(refusal[3])
    waiting = asyncio.create_task(world.begin(key).connect())
    await asyncio.sleep(0)

    world.keys.clear()
    world.changes.publish(KeyChanged(key.key.id))
    world.registry.reported(session, fakes.report())
    with pytest.raises(RequestFailed) as caught:
        await waiting
    assert caught.value.code == "invalid_api_key"
    assert not session.opened


@pytest.mark.parametrize(
    ("narrowed", "code"),
    [
        ({"models": frozenset({"another"})}, "model_not_allowed"),
        ({"regions": frozenset({"us"})}, "no_available_node"),
        ({"minimum_trust": "confidential"}, "no_available_node"),
        ({"fleet": "nonsense"}, "no_available_node"),
    ],
)
async def test_a_key_narrowed_while_its_request_waits_is_held_to_it(world, fakes, narrowed, code):
    await loaded(world, "n1")
    world.dispatcher.places.queue_timeout_s = 5
    session = world.connect("n1", report=fakes.report(running=8))
    key, told = await admitted(world), []
    world.dispatcher.places.on_refused = lambda *refusal: told.append(refusal[3])
    waiting = asyncio.create_task(world.begin(key).connect())
    await asyncio.sleep(0)

    world.keys[key.secret_hash] = replace(key.key, **narrowed)
    world.changes.publish(KeyChanged(key.key.id))
    world.registry.reported(session, fakes.report())
    with pytest.raises(RequestFailed) as caught:
        await waiting
    assert caught.value.code == code
    assert told == [code], "each refusal by policy is one for the audit log"
    assert not session.opened


async def test_the_refusal_counts_the_callers_own_nodes_only(world):
    world.add_node("mine", region="us")
    world.add_node("mine_too")
    world.add_node("theirs", owner_id="org_b")
    await world.registry.facts.load()
    world.connect("mine")
    world.connect("theirs")

    failure = await refusal_of(world.begin(await admitted(world, regions=frozenset({"eu"}))))
    assert failure.code == "no_available_node"
    assert "1 offline" in failure.message
    assert "1 outside the key's regions" in failure.message
    assert "2" not in failure.message


async def test_a_model_that_only_forbidden_nodes_offer_does_not_exist(world, fakes):
    world.add_node("theirs", owner_id="org_b")
    world.add_node("mine")
    await world.registry.facts.load()
    world.connect("theirs", report=fakes.report(model="secret"))
    world.connect("mine")
    key = await admitted(world)

    assert (await refusal_of(world.begin(key, model="secret"))).code == "model_not_found"
    narrowed = Narrowing(region="us")
    assert (await refusal_of(world.begin(key, narrowing=narrowed))).code == "no_available_node"


async def test_what_the_model_cannot_do_is_never_a_capacity_error(world, fakes):
    key = await admitted(world)
    with pytest.raises(RequestFailed) as caught:
        world.begin(key, needs_tools=True)
    assert (caught.value.code, caught.value.param) == ("unsupported_parameter", "tools")

    await loaded(world, "n1")
    world.connect("n1", report=fakes.report(model="uncatalogued"))
    failure = await refusal_of(world.begin(key, model="uncatalogued", capability="embeddings"))
    assert failure.code == "unsupported_parameter"


async def test_cancelling_resets_the_stream_and_frees_the_node(world, fakes):
    await loaded(world, "n1")
    session = world.connect("n1", answer=lambda _open: fakes.stream(b"a", b"b"))
    dispatch = world.begin(await admitted(world))
    await dispatch.connect()
    assert world.registry.snapshot()["n1"].in_flight == 1

    dispatch.close()

    assert session.streams[0].was_reset is ResetCode.CANCELLED
    assert world.registry.snapshot()["n1"].in_flight == 0
    assert [record.outcome for record in world.records] == ["cancelled"]
