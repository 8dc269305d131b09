"""What people have at hand is read, and said to be what it is where it is something else."""

import json

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from hub.audit import Event, Problem
from hub.checkpoints import Checkpoint, read_checkpoint, sign_checkpoint
from hub.errors import CheckpointInvalid, InvalidInput
from hub.evidence import (
    LogCheck,
    checkpoints_in,
    export_event,
    export_head,
    judge,
    keys_in,
    read_export,
    receipts_in,
)
from tunnel.identity import encode_public_key

HUB, OTHER = (Ed25519PrivateKey.from_private_bytes(bytes([number] * 32)) for number in (1, 2))
KEY = encode_public_key(HUB.public_key())
CHECKPOINT = Checkpoint("hub_a", 7, "ab" * 32, 1_700_000_000_000)


def raw(keys):
    return [encode_public_key(key) for key in keys]


@pytest.mark.parametrize(
    "text",
    [
        "a.b.c\nd.e.f\n",
        "a.b.c\r\n\r\n  d.e.f",
        "HTTP/1.1 200 OK\r\nX-Porten-Receipt: a.b.c\r\n\r\nhello\nx-porten-receipt:d.e.f\r\n",
        ": keep-alive\n\n: x-porten-receipt a.b.c\n\ndata: {}\n\n: x-porten-receipt d.e.f\n\ndata: [DONE]\n",
    ],
)
def test_receipts_are_found_where_they_come(text):
    assert receipts_in(text) == ["a.b.c", "d.e.f"]


def test_no_receipt_at_all_is_said():
    with pytest.raises(InvalidInput, match="x-porten-receipt"):
        receipts_in(" \n\n")


def test_what_is_no_receipt_does_not_hold():
    assert [verdict.reason for verdict in judge(["nonsense", "a.b.c"], [HUB.public_key()])] == [
        *("it is damaged, or no receipt", "it is damaged, or no receipt")
    ]


@pytest.mark.parametrize(
    "text", [f"{KEY}\n", f"# ours\n{KEY}  # since 2026\n\n", json.dumps({"hub_id": "h", "public_key": KEY})]
)
def test_keys_are_read_from_a_list_and_from_the_hubs_own_document(text):
    assert raw(keys_in(text)) == [KEY]


@pytest.mark.parametrize("text", ["", "# nothing\n", "hello\n", "{}", KEY[:-3], f"{KEY}\nx"])
def test_what_is_no_key_is_said(text):
    with pytest.raises(InvalidInput, match="hub-key"):
        keys_in(text)


def test_checkpoints_are_found_in_a_log():
    token = sign_checkpoint(HUB, CHECKPOINT)
    line = f"2026-01-31T12:00:00.123Z INFO hub.sealing audit log sealed event=audit.checkpoint token={token}"
    others = "INFO hub.portal.pages page refused address=127.0.0.1 a.b.c eyJh.eyJh.x"
    assert checkpoints_in(f"{others}\n{line}\n{token}\n{others}") == [token, token]
    with pytest.raises(InvalidInput, match=r"audit\.checkpoint"):
        checkpoints_in(others)
    with pytest.raises(InvalidInput, match=r"audit\.checkpoint"):
        checkpoints_in("nothing here")


def test_a_checkpoint_is_read_by_the_key_that_signed_it_alone():
    token = sign_checkpoint(HUB, CHECKPOINT)
    assert read_checkpoint(token, OTHER.public_key(), HUB.public_key()) == CHECKPOINT
    with pytest.raises(CheckpointInvalid):
        read_checkpoint(token, OTHER.public_key())
    for text in ("", "a.b.c", token[:-6], token.replace(".", "", 1)):
        with pytest.raises(CheckpointInvalid):
            read_checkpoint(text, HUB.public_key())


async def test_a_checkpoint_of_another_hub_is_a_finding():
    async def none():
        return
        yield

    tokens = [sign_checkpoint(OTHER, CHECKPOINT), sign_checkpoint(HUB, Checkpoint("hub_b", 1, "", 0))]
    found = await LogCheck("hub_a", tokens, [HUB.public_key()]).over(none())
    assert [each.problem for each in found] == [Problem.CHECKPOINT] * 2


events = st.builds(
    Event,
    sequence=st.integers(0, 2**40),
    time_ms=st.integers(0, 2**40),
    organisation_id=st.none() | st.text(st.characters(exclude_categories=["Cs"]), max_size=5),
    actor=st.text(st.characters(exclude_categories=["Cs"]), max_size=5),
    action=st.just("a"),
    subject=st.just("s"),
    details=st.text(st.characters(exclude_categories=["Cs"]), max_size=9),
    batch=st.none(),
    previous_hash=st.just("0"),
    hash=st.just("1"),
)


@given(st.lists(events, max_size=4), st.lists(st.from_regex(r"\w+\.\w+\.\w+", fullmatch=True), max_size=3))
def test_an_export_reads_back_as_it_was(log, tokens):
    lines = [*export_head("hub_a", HUB.public_key(), tokens), *map(export_event, log)]
    read = read_export("\n".join(lines) + "\n")
    assert (read.hub_id, read.public_key) == ("hub_a", KEY)
    assert (list(read.checkpoints), list(read.events)) == (tokens, log)


@pytest.mark.parametrize("text", ["", "{}", "hello", '{"form": "porten-audit.v2"}'])
def test_what_is_no_export_is_said(text):
    with pytest.raises(InvalidInput, match="file"):
        read_export(text)


def test_a_damaged_line_of_an_export_is_said():
    head = next(iter(export_head("hub_a", HUB.public_key(), ())))
    for line in ("{", '{"kind": "event"}', '{"kind": "checkpoint"}', "[]"):
        with pytest.raises(InvalidInput, match="damaged"):
            read_export(f"{head}\n{line}\n")
