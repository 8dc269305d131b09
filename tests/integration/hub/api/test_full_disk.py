"""A Hub that cannot record usage says so before anything is computed, or else ends with an error."""

import shutil

import pytest

from hub import spool

CHAT = "/v1/chat/completions"


@pytest.fixture
async def asked(bench, http):
    """A node, and a way to ask it."""
    organisation = await bench.organisation()
    node = await bench.node(organisation)
    headers = {"authorization": f"Bearer {await bench.key(organisation)}"}

    async def ask(**changes):
        return await http.post(CHAT, json={"model": "tiny", "messages": []} | changes, headers=headers)

    return node, ask


async def test_no_room_is_known_before_anything_is_computed(http, asked, monkeypatch):
    node, ask = asked
    monkeypatch.setattr(spool, "MIN_FREE_BYTES", 2**62)
    response = await ask()
    assert (response.status_code, response.json()["error"]["code"]) == (500, "internal_error")
    assert "disk" in response.json()["error"]["message"]
    assert not node.seen
    ready = await http.get("/readyz")
    assert (ready.status_code, ready.json()["disk"]) == (503, False)
    monkeypatch.undo()
    assert (await http.get("/readyz")).json()["disk"] is True
    assert (await ask()).status_code == 200


@pytest.fixture
def spoolless(asked, config, script):
    """The spool disappears while the node answers."""
    node, ask = asked

    async def answers(stream, request):
        shutil.rmtree(config.spool_dir)
        await script.answer(stream, request)

    node.script = answers
    return ask


async def test_a_whole_answer_that_cannot_be_accounted_for_is_an_error(bench, spoolless, caplog):
    response = await spoolless()
    assert (response.status_code, response.json()["error"]["code"]) == (500, "internal_error")
    events = {getattr(record, "event", "") for record in caplog.records}
    assert "usage.lost" in events
    assert "api.failed" not in events
    assert not bench.hub.meter.has_room()


async def test_a_stream_that_cannot_be_accounted_for_ends_with_an_error_event(spoolless):
    response = await spoolless(stream=True)
    assert response.status_code == 200
    assert "one " in response.text
    assert "internal_error" in response.text
    assert "[DONE]" not in response.text.split("internal_error")[0]
