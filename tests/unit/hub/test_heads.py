"""A node's head cannot become more than it is."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hub.errors import RequestFailed
from hub.heads import check_success, digest_of
from tunnel.messages import Head


def head(kind, status=200):
    return Head(status=status, headers=(("Content-Type", kind),))


@pytest.mark.parametrize(
    "kind",
    [
        "application/json",
        "text/event-stream",
        "text/event-stream; charset=utf-8",
        'a/b;x="y"',
        "a/b+c; q=1; v=2",
    ],
)
def test_types_are_let_through(kind):
    check_success(head(kind))
    check_success(Head(status=200, headers=()))


@pytest.mark.parametrize(
    "kind",
    [
        "application/json\r\nset-cookie: a=b",
        "text/html\n",
        "text/html\r\n\r\n<script>",
        "application/json\0",
        "no type",
        "text/",
        "ünïcode/json",
        "a/b" + "; x=y" * 100,
    ],
)
def test_what_is_no_type_is_refused(kind):
    with pytest.raises(RequestFailed) as refused:
        check_success(head(kind))
    assert refused.value.code == "engine_error"


@pytest.mark.parametrize("status", [100, 101, 204, 205, 206, 301, 304, 0, -1])
def test_a_status_that_carries_no_answer_is_refused(status):
    with pytest.raises(RequestFailed):
        check_success(head("application/json", status))


@given(st.text(max_size=200))
def test_what_passes_is_printable_ascii_without_blanks_in_it(text):
    found = digest_of(text)
    assert found is None or (found == text and found.isascii() and found.isprintable() and " " not in found)


def test_digests():
    assert digest_of("sha256:" + "a" * 64) == "sha256:" + "a" * 64
    assert digest_of(None) is None
    assert digest_of("sha256:0\r\nx-porten-node: node_other") is None
