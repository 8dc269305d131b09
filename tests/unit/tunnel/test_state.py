import itertools
from pathlib import Path

import pytest

from tunnel.errors import ProtocolViolation
from tunnel.flow import ReceiveWindow, SendCredit
from tunnel.state import TRANSITIONS, Half, Signal, StreamState


@pytest.mark.parametrize(("half", "signal"), list(itertools.product(Half, Signal)))
def test_only_the_table_moves_a_half(half: Half, signal: Signal, request_open) -> None:
    stream = StreamState(1, request_open(), sending=half, window=ReceiveWindow(), credit=SendCredit())
    after = TRANSITIONS.get((half, signal))
    if after is None:
        with pytest.raises(ProtocolViolation) as caught:
            stream.sent(signal)
        assert caught.value.local
    else:
        stream.sent(signal)
        assert stream.sending is after


def test_a_stream_is_over_when_both_halves_are(request_open) -> None:
    stream = StreamState(1, request_open(), sending=Half.BODY, window=ReceiveWindow(), credit=SendCredit())
    stream.sent(Signal.FIN)
    assert not stream.over
    stream.received(Signal.HEAD)
    stream.received(Signal.FIN)
    assert stream.over


def test_the_specification_shows_this_table() -> None:
    spec = (Path(__file__).parents[3] / "tunnel" / "SPEC.md").read_text()
    for half, signal in itertools.product(Half, Signal):
        after = TRANSITIONS.get((half, signal))
        row = f"| {half.name} | {signal.name} | {after.name if after else 'violation'} |"
        assert row in spec
