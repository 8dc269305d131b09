"""One trace from the app's request to the engine, over two real processes."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from benchmarks.stacks.stack import MODEL, SharedData, run_stack
from tests.otlp import Receiver, receiving

STEPS = ("porten.request", "porten.tunnel", "porten.node", "porten.engine")


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as found:
        yield found


async def test_hub_and_node_write_one_trace(tmp_path: Path, shared_data: Path, receiver: Receiver) -> None:
    hub = {"PORTEN_HUB_OTLP_ENDPOINT": receiver.url}
    node = {"PORTEN_OTLP_ENDPOINT": receiver.url}
    async with run_stack(tmp_path, SharedData(shared_data), node_settings=node, hub_settings=hub) as stack:
        async with httpx.AsyncClient(timeout=120, trust_env=False) as http:
            answer = await http.post(
                f"{stack.base_url}/chat/completions",
                json={"model": MODEL, "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 2},
                headers={"authorization": f"Bearer {stack.api_key}"},
            )
        assert answer.status_code == 200
        async with asyncio.timeout(30):
            while not all(receiver.named(step) for step in STEPS):
                await asyncio.sleep(0.1)
    request, tunnel, on_node, engine = (receiver.named(step)[0] for step in STEPS)
    [lease] = receiver.named("porten.lease")
    assert len({span.trace_id for span in receiver.spans}) == 1
    assert [tunnel.parent_id, on_node.parent_id, engine.parent_id, lease.parent_id] == [
        request.span_id,
        tunnel.span_id,
        on_node.span_id,
        on_node.span_id,
    ]
    assert (request.service, on_node.service) == ("porten-hub", "porten-node")
    assert on_node.attributes["porten.outcome"] == "ok"
