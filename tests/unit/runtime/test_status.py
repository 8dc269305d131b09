"""What the node says of itself fits into one control message and promises nothing it does not have."""

from runtime.snapshot import DeviceView, ModelView, NodeSnapshot, ReplicaView
from runtime.status import MAX_DEVICES, MAX_MODELS, MAX_REPLICAS, describe, to_status
from tunnel.messages import MAX_CONTROL_BYTES, encode_message

DEVICE = DeviceView(
    id="GPU-" + "a" * 60,
    kind="cuda",
    name="A very long product name of a graphics processor indeed " * 2,
    memory_total=2**40,
    memory_used_by_others=2**40,
    memory_budget=2**40,
    memory_reserved=2**33,
    memory_held=2**30,
    held_reason="pid 1 lives",
)


def model(name: str, **changes: object) -> ModelView:
    fields = {
        "model": name,
        "digest": "sha256:" + "a" * 64,
        "size_bytes": 2**40,
        "on_disk": False,
        "state": "cold",
        "fits": True,
        "context_length": 131072,
        "capabilities": ("chat", "completions", "tools", "vision"),
        "phase": "downloading",
        "done_bytes": 2**40,
        "total_bytes": None,
    }
    return ModelView(**{**fields, **changes})


def replica(number: int) -> ReplicaView:
    return ReplicaView(
        id=f"replica-{number:020}",
        model="organisation/family-70b-instruct-q4",
        state="starting",
        slots=256,
        running=256,
        waiting=9999,
        tokens_per_second=12345.678,
        phase="loading",
        progress=0.123456789,
        device=DEVICE.id,
        reserved_bytes=2**40,
        pid=4194304,
    )


def snapshot(**changes: object) -> NodeSnapshot:
    fields = {"accepting": True, "reason": None, "devices": (DEVICE,), "replicas": (), "models": ()}
    return NodeSnapshot(**{**fields, **changes})


def test_the_largest_status_fits_into_a_control_message() -> None:
    everything = snapshot(
        devices=(DEVICE,) * (MAX_DEVICES + 5),
        replicas=tuple(replica(number) for number in range(MAX_REPLICAS + 5)),
        models=tuple(
            model(f"organisation/family-{number}b-instruct-q4") for number in range(MAX_MODELS + 50)
        ),
    )
    assert len(encode_message(to_status(everything))) < MAX_CONTROL_BYTES


def test_of_many_models_those_nearest_to_serving_are_named() -> None:
    cold = tuple(model(f"cold-{number}") for number in range(MAX_MODELS))
    models = (
        *cold,
        model("stored", on_disk=True),
        model("warm", state="warming"),
        model("hot", state="ready"),
    )
    named = [view.model for view in to_status(snapshot(models=models)).models]
    assert named[:3] == ["hot", "warm", "stored"]
    assert len(named) == MAX_MODELS


def test_held_memory_is_not_promised_again() -> None:
    assert to_status(snapshot()).devices[0].memory_reserved == 2**33 + 2**30


def test_a_stopping_node_accepts_nothing() -> None:
    status = to_status(snapshot(), stopping=True)
    assert (status.accepting, status.reason) == (False, "stopping")


def test_the_owners_document_names_held_memory_and_why() -> None:
    document = describe(snapshot(), identity=None, tunnel="none", local_url="http://x", pid=1, stopping=False)
    assert document["devices"][0]["held_reason"] == "pid 1 lives"
    assert document["node"] is None


def test_a_model_that_nobody_asked_for_is_in_no_phase() -> None:
    models = (
        model("idle", phase="queued"),
        model("asked", phase="queued", state="warming"),
        model("broken", phase="failed"),
    )
    document = describe(
        snapshot(models=models), identity=None, tunnel="none", local_url="", pid=1, stopping=False
    )
    assert [view["phase"] for view in document["models"]] == [None, "queued", "failed"]
