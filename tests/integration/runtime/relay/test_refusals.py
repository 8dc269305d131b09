"""What the relay refuses or answers itself before an engine is asked."""

import json
from typing import Any

import pytest

from runtime.errors import (
    EngineUnavailable,
    LoadFailed,
    ModelDoesNotFit,
    ModelUnknown,
    NodeStopping,
    Overloaded,
    RuntimeFault,
    Warming,
)
from runtime.progress import LoadProgress
from tests.integration.runtime.relay.answering import DONE, answers
from tunnel.errors import ResetCode, StreamReset


@pytest.mark.parametrize(
    ("fault", "code"),
    [
        (Overloaded("m"), ResetCode.OVERLOADED),
        (ModelUnknown("m"), ResetCode.REFUSED),
        (ModelDoesNotFit("m", "too big"), ResetCode.REFUSED),
        (EngineUnavailable("none", remedy="install"), ResetCode.REFUSED),
        (NodeStopping("stopping"), ResetCode.REFUSED),
        (LoadFailed("m", "bad file"), ResetCode.LOAD_FAILED),
    ],
)
async def test_a_fault_before_the_answer_says_whether_another_node_may_be_tried(
    bridge: Any, leases: Any, fault: RuntimeFault, code: ResetCode
) -> None:
    leases.refuse = fault
    stream = await bridge.open()
    with pytest.raises(StreamReset) as caught:
        await stream.head()
    assert caught.value.code is code


async def test_a_model_still_warming_is_an_answer(bridge: Any, leases: Any, read: Any) -> None:
    leases.refuse = Warming("smollm2", LoadProgress("downloading", 1, 4))
    stream = await bridge.open()
    head = await stream.head()
    assert (head.status, dict(head.headers)["retry-after"]) == (503, "5")
    document = json.loads(b"".join(await read(stream)))
    assert document["error"]["code"] == "model_warming"
    assert "25%" in document["error"]["message"]
    assert stream.trailers.outcome == "model_warming"


async def test_the_callers_warmup_budget_reaches_the_lease(
    engine: Any, bridge: Any, leases: Any, read: Any
) -> None:
    engine.script = answers([DONE])
    for value in ("7.5", "nonsense", "-1", "1e9"):
        await read(await bridge.open(headers=(("X-Porten-Warmup-Budget", value),)))
    assert leases.budgets[0] == 7.5
    assert all(50 < budget <= 60 for budget in leases.budgets[1:])  # never past the request's own deadline


async def test_a_draining_node_starts_nothing(engine: Any, bridge: Any) -> None:
    bridge.relay.refusing = True
    stream = await bridge.open()
    with pytest.raises(StreamReset) as caught:
        await stream.head()
    assert caught.value.code is ResetCode.REFUSED
    assert engine.requests == []


@pytest.mark.parametrize(
    "wrong", [{"path": "/slots"}, {"path": "/v1/chat/completions/../../slots"}, {"method": "GET"}]
)
async def test_only_the_inference_endpoints_are_reached(
    engine: Any, bridge: Any, read: Any, wrong: dict[str, str]
) -> None:
    stream = await bridge.open(**wrong)
    assert (await stream.head()).status == 404
    assert json.loads(b"".join(await read(stream)))["error"]["code"] == "unknown_url"
    assert engine.requests == []
