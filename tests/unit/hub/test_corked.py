"""A head that waits for its body: the same bytes in the same order, in fewer writes."""

import asyncio

from hypothesis import given
from hypothesis import strategies as st

from hub.api.corked import Corked

HEAD = b"HTTP/1.1 200 OK\r\n\r\n"


class Written:
    """What a transport was told to do."""

    def __init__(self):
        self.pieces = []
        self.protocol = None
        self.closed = False

    def write(self, data):
        assert not self.closed
        self.pieces.append(data)

    def close(self):
        self.closed = True

    def set_protocol(self, protocol):
        self.protocol = protocol

    def is_closing(self):
        return self.closed


def inside(work):
    """Run something in a loop; returns what was written by then and in all."""

    async def turn():
        transport = Written()
        work(Corked(transport, asyncio.get_running_loop()))
        before = list(transport.pieces)
        await asyncio.sleep(0)
        return before, transport

    return asyncio.run(turn())


def test_a_head_leaves_with_its_body():
    before, transport = inside(
        lambda corked: (corked.write(HEAD), corked.write(b"body"), corked.write(b"more"))
    )
    assert before == transport.pieces == [HEAD + b"body", b"more"]


def test_a_head_alone_leaves_at_the_end_of_the_turn():
    before, transport = inside(lambda corked: corked.write(HEAD))
    assert (before, transport.pieces) == ([], [HEAD])


def test_what_was_written_leaves_before_the_end():
    before, transport = inside(lambda corked: (corked.write(HEAD), corked.close()))
    assert before == [HEAD]
    assert transport.is_closing()


def test_another_protocol_gets_a_connection_on_which_nothing_is_held_back():
    protocol = asyncio.Protocol()
    before, transport = inside(lambda corked: (corked.write(HEAD), corked.set_protocol(protocol)))
    assert before == [HEAD]
    assert transport.protocol is protocol


@given(st.lists(st.sampled_from([HEAD, b"HTTP/1.1 100 Continue\r\n\r\n", b"body", b"H", b""])))
def test_nothing_is_lost_or_turned_round(pieces):
    _, transport = inside(lambda corked: [corked.write(piece) for piece in pieces])
    assert b"".join(transport.pieces) == b"".join(pieces)
    assert len(transport.pieces) <= len(pieces)
