import hashlib
import json
import os
from pathlib import Path

import pytest

from models.catalog import FileSource, ModelSpec
from models.disk import FileLock
from models.errors import DigestMismatch, DiskBudgetExceeded, ModelNotFound
from models.leftovers import ABANDONED_AFTER_S
from models.store import ModelStore, StoredModel


def spec_of(content: bytes | None, model_id: str = "mine", path: str = "/nowhere.gguf") -> ModelSpec:
    return ModelSpec(
        id=model_id,
        name="Mine",
        source=FileSource(path=path),
        context_length=128,
        sha256=None if content is None else hashlib.sha256(content).hexdigest(),
    )


def publish(store: ModelStore, spec: ModelSpec, content: bytes) -> StoredModel:
    weights = store.workspace(spec) / "weights"
    weights.write_bytes(content)
    stored = store.publish(spec, weights, digest=hashlib.sha256(content).hexdigest())
    store.discard(spec)
    return stored


@pytest.fixture
def store(tmp_path: Path) -> ModelStore:
    return ModelStore(tmp_path / "models")


def test_what_was_published_is_found(store: ModelStore) -> None:
    spec = spec_of(b"abc")
    assert store.find(spec) is None
    assert store.list() == []
    stored = publish(store, spec, b"abc")
    assert stored.path.read_bytes() == b"abc"
    assert stored.digest == "sha256:" + hashlib.sha256(b"abc").hexdigest()
    assert (stored.model_id, stored.size_bytes) == ("mine", 3)
    assert store.find(spec) == stored
    assert store.list() == [stored]
    assert ModelStore(store.root).find(spec) == stored


def test_an_entry_that_promises_other_bytes_finds_nothing(store: ModelStore) -> None:
    publish(store, spec_of(b"abc"), b"abc")
    assert store.find(spec_of(b"other")) is None
    assert store.find(spec_of(None, path="/elsewhere.gguf")) is None
    assert store.find(spec_of(None)) is not None


def test_wrong_bytes_are_never_published(store: ModelStore) -> None:
    with pytest.raises(DigestMismatch, match="mine"):
        publish(store, spec_of(b"abc"), b"abd")
    assert store.list() == []


def test_new_weights_replace_the_old_and_free_them(store: ModelStore) -> None:
    old = publish(store, spec_of(None), b"old")
    new = publish(store, spec_of(None), b"new")
    assert store.list() == [new]
    assert not old.path.exists()


def test_shared_weights_stay_until_nobody_has_them(store: ModelStore) -> None:
    stored = publish(store, spec_of(b"abc", "one"), b"abc")
    publish(store, spec_of(b"abc", "two/three:x"), b"abc")
    assert [model.model_id for model in store.list()] == ["one", "two/three:x"]
    assert store.remove("one") == 0
    assert stored.path.exists()
    assert store.remove("two/three:x") == 3
    assert not stored.path.exists()
    assert store.list() == []


@pytest.mark.parametrize("model_id", ["absent", "", "../refs/mine", "a\0b", "x" * 500])
def test_removing_what_is_not_there_says_so(store: ModelStore, model_id: str) -> None:
    publish(store, spec_of(b"abc"), b"abc")
    with pytest.raises(ModelNotFound):
        store.remove(model_id)
    assert len(store.list()) == 1


def test_ids_with_slashes_and_the_longest_one_have_a_file_of_their_own(store: ModelStore) -> None:
    for model_id in ("a/b", "a:b", "a.b", "a-b", "a" + "/" * 127):
        publish(store, spec_of(None, model_id), model_id.encode())
    assert len(store.list()) == 5
    assert all(store.find(spec_of(None, model.model_id)) == model for model in store.list())


@pytest.mark.parametrize("damage", [b"", b"{", b"[]", b'{"model": "mine"}', b"\xff"])
def test_an_unreadable_ref_is_no_model_and_can_be_replaced(store: ModelStore, damage: bytes) -> None:
    publish(store, spec_of(b"abc"), b"abc")
    (reference,) = (store.root / "refs").iterdir()
    reference.write_bytes(damage)
    assert store.find(spec_of(b"abc")) is None
    assert store.list() == []
    publish(store, spec_of(b"abc"), b"abc")
    assert len(store.list()) == 1


def test_an_unreadable_ref_can_be_removed(store: ModelStore) -> None:
    publish(store, spec_of(b"abc"), b"abc")
    next((store.root / "refs").iterdir()).write_bytes(b"{")
    store.remove("mine")
    with pytest.raises(ModelNotFound):
        store.remove("mine")


def test_missing_or_truncated_weights_are_not_found(store: ModelStore) -> None:
    stored = publish(store, spec_of(b"abc"), b"abc")
    stored.path.write_bytes(b"ab")
    assert store.find(spec_of(b"abc")) is None
    stored.path.unlink()
    assert store.find(spec_of(b"abc")) is None
    assert store.list() == []


def test_weights_that_lie_here_already_are_adopted_after_a_check(store: ModelStore) -> None:
    stored = publish(store, spec_of(b"abc", "one"), b"abc")
    adopted = store.adopt(spec_of(b"abc", "two"))
    assert adopted is not None
    assert (adopted.model_id, adopted.path) == ("two", stored.path)
    assert store.adopt(spec_of(b"xyz", "three")) is None
    assert store.adopt(spec_of(None, "three")) is None
    stored.path.write_bytes(b"bad")
    assert store.adopt(spec_of(b"abc", "three")) is None
    assert store.list() == []


def test_the_ref_says_where_weights_came_from(store: ModelStore) -> None:
    publish(store, spec_of(b"abc"), b"abc")
    said = json.loads((store.root / "refs" / "mine.json").read_bytes())
    assert said["model"] == "mine"
    assert said["source"] == {"kind": "file", "path": "/nowhere.gguf"}


def test_sweeping_frees_what_crashes_left_but_nothing_in_use(store: ModelStore) -> None:
    kept = publish(store, spec_of(b"abc"), b"abc")
    orphan = publish(store, spec_of(b"orphan", "gone"), b"orphan")
    (store.root / "refs" / "gone.json").unlink()
    abandoned, busy = spec_of(b"1", "abandoned"), spec_of(b"2", "busy")
    for spec in (abandoned, busy):
        (store.workspace(spec) / "weights").write_bytes(b"part")
    now = orphan.path.stat().st_mtime
    assert store.sweep(now + ABANDONED_AFTER_S / 2) == 0
    with store.lock(busy).held():
        assert store.sweep(now + ABANDONED_AFTER_S * 2) == len(b"orphan") + len(b"part")
    assert kept.path.exists()
    assert not orphan.path.exists()
    assert (store.workspace(busy) / "weights").exists()
    assert not (store.workspace(abandoned) / "weights").exists()


def test_the_budget_counts_what_is_here_and_what_is_coming(tmp_path: Path) -> None:
    store = ModelStore(tmp_path, budget_bytes=100)
    publish(store, spec_of(b"a" * 40, "here"), b"a" * 40)
    coming, other = spec_of(b"b", "coming"), spec_of(b"c", "other")
    store.marks.pin("here")
    with store.lock(coming).held():
        store.reserve(coming, kept=50)
        with pytest.raises(DiskBudgetExceeded, match="porten models rm") as caught:
            store.reserve(other, kept=11)
        assert (caught.value.needed, caught.value.available) == (11, 10)
        store.reserve(other, kept=10)
    # Whoever pulled `coming` is gone: its claim is too, though not the bytes it has.
    (store.workspace(coming) / "weights").write_bytes(b"b" * 8)
    store.reserve(other, kept=50)
    with pytest.raises(DiskBudgetExceeded):
        store.reserve(other, kept=52)


def test_a_pull_does_not_count_against_itself(tmp_path: Path) -> None:
    store = ModelStore(tmp_path, budget_bytes=100)
    spec = spec_of(b"b")
    with store.lock(spec).held():
        store.reserve(spec, kept=90)
        (store.workspace(spec) / "weights").write_bytes(b"b" * 60)
        store.reserve(spec, kept=90)


def test_a_file_the_owner_still_has_takes_no_room_of_the_budget(tmp_path: Path) -> None:
    store = ModelStore(tmp_path / "models", budget_bytes=100)
    own, spec = tmp_path / "own", spec_of(None)
    own.write_bytes(b"x" * 90)
    os.link(own, store.workspace(spec) / "weights")
    store.publish(spec, store.workspace(spec) / "weights", digest=hashlib.sha256(b"x" * 90).hexdigest())
    store.discard(spec)
    store.reserve(spec_of(b"b", "other"), kept=100)


def test_more_than_the_disk_has_is_refused(store: ModelStore) -> None:
    with pytest.raises(DiskBudgetExceeded, match="the disk is full"):
        store.reserve(spec_of(b"b"), kept=2**60)
    with pytest.raises(DiskBudgetExceeded, match="the disk is full"):
        store.reserve(spec_of(b"b"), kept=1, transient=2**60)
    assert not (store.root / "partial").exists()


def test_a_lock_has_one_holder(tmp_path: Path) -> None:
    first, second = FileLock(tmp_path / "x" / "lock"), FileLock(tmp_path / "x" / "lock")
    assert first.acquire(wait=False)
    assert not second.acquire(wait=False)
    first.release()
    first.release()
    with second.held():
        assert not first.acquire(wait=False)
        assert second.descriptor >= 0
    with pytest.raises(RuntimeError, match="not held"):
        _ = second.descriptor
