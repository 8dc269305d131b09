import pytest

from tunnel.backoff import Backoff
from tunnel.frames import PING_BODY, FrameType, decode
from tunnel.liveness import Liveness, LivenessTimes

TIMES = LivenessTimes()


def test_a_silent_peer_is_dead_after_forty_seconds() -> None:
    liveness = Liveness(TIMES, pings=False, now=0.0)
    assert liveness.dead(39.9) is None
    liveness.heard = 39.9
    assert liveness.dead(79.8) is None
    assert liveness.dead(79.91) == "silent"


def test_a_stalled_write_is_dead_after_twenty_seconds() -> None:
    liveness = Liveness(TIMES, pings=False, now=0.0)
    liveness.heard = liveness.writing_since = 3.0
    assert liveness.next_deadline() == 23.0
    assert liveness.dead(22.9) is None
    assert liveness.dead(23.0) == "stalled"


def test_a_write_that_began_after_the_timer_was_set_is_found_on_time() -> None:
    """Nobody sets a timer when a write begins: the one set before must be enough."""
    liveness = Liveness(TIMES, pings=False, now=0.0)
    timer = liveness.next_deadline()
    liveness.writing_since = 19.0
    liveness.heard = timer
    assert liveness.dead(timer) is None
    assert liveness.next_deadline() == 39.0


@pytest.mark.parametrize(("jitter", "interval"), [(0.0, 12.0), (0.5, 15.0), (0.999999, 18.0)])
def test_pings_are_spread(jitter: float, interval: float) -> None:
    liveness = Liveness(TIMES, pings=True, now=0.0, jitter=lambda: jitter)
    assert liveness.next_deadline() == pytest.approx(interval, rel=1e-4)
    assert not liveness.ping_due(interval - 0.01)
    assert liveness.ping_due(interval + 0.01)
    assert not liveness.ping_due(interval + 0.02)


def test_times_keep_their_proportions() -> None:
    assert LivenessTimes.for_heartbeat(15.0) == TIMES


def test_only_the_hub_pings_and_the_node_answers_with_the_generation(pair) -> None:
    pair.now += 15.0
    assert pair.hub.tick(pair.now) is None
    assert pair.node.tick(pair.now) is None
    assert pair.node.data_to_send(pair.now) == b""
    ping = pair.hub.data_to_send(pair.now)
    pair.node.receive(ping, pair.now)
    pong = next(decode(pair.node.data_to_send(pair.now)))
    assert pong.type == FrameType.PONG
    assert PING_BODY.unpack(pong.payload) == ((1).to_bytes(8, "big"), 7)


def test_the_protocol_says_who_is_dead(pair) -> None:
    assert pair.hub.tick(139.0) is None
    assert pair.hub.tick(140.0) == "silent"
    assert pair.hub.next_deadline() <= 155.0


def test_failures_back_off_with_full_jitter_up_to_thirty_seconds() -> None:
    backoff = Backoff(lambda: 1.0)
    assert [backoff.failed() for _ in range(8)] == [0.5, 1, 2, 4, 8, 16, 30, 30]
    assert Backoff(lambda: 0.0).failed() == 0.0


def test_the_hubs_wish_is_the_least() -> None:
    backoff = Backoff(lambda: 0.5)
    assert backoff.failed(10) == 10.25


def test_refusals_back_off_from_one_to_fifteen_minutes() -> None:
    backoff = Backoff(lambda: 1.0)
    assert [backoff.refused() for _ in range(6)] == [60, 120, 240, 480, 900, 900]
    assert backoff.refused(2000) == 2000


def test_only_a_stable_session_resets_the_count() -> None:
    backoff = Backoff(lambda: 1.0)
    for _ in range(4):
        backoff.failed()
    backoff.connected(59.0)
    assert backoff.failed() == 8
    backoff.connected(60.0)
    assert backoff.failed() == 0.5


@pytest.mark.parametrize("began", [1001.9691148478493, 1000.1, 0.3, 123456.7])
def test_a_timer_that_rings_when_it_was_asked_for_finds_the_dead(began: float) -> None:
    """Else it would be set again for the same moment, and again."""
    liveness = Liveness(TIMES, pings=False, now=began)
    liveness.writing_since = began
    assert liveness.dead(liveness.next_deadline()) == "stalled"
    liveness.writing_since = None
    liveness.dead(began + 30)
    assert liveness.dead(liveness.next_deadline()) == "silent"
