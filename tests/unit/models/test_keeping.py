"""What stays in a store whose disk budget is used up: pinned, loaded and lately used weights."""

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

from models import references
from models.catalog import FileSource, ModelSpec
from models.disk import OnBytes
from models.errors import DiskBudgetExceeded, ModelNotFound, WeightsUnreadable
from models.leftovers import ABANDONED_AFTER_S
from models.store import ModelStore, StoredModel
from models.tree import hash_tree, tree_digest

NOW = 1_800_000_000.0


def spec_of(model_id: str, content: bytes | None = None) -> ModelSpec:
    return ModelSpec(
        id=model_id,
        name="",
        source=FileSource(path="/nowhere"),
        context_length=1,
        sha256=hashlib.sha256(content).hexdigest() if content else None,
    )


@pytest.fixture
def store(tmp_path: Path) -> ModelStore:
    return ModelStore(tmp_path / "models", budget_bytes=100)


def publish(store: ModelStore, model_id: str, content: bytes, used: float = NOW) -> StoredModel:
    spec = spec_of(model_id)
    weights = store.workspace(spec) / "weights"
    weights.write_bytes(content)
    stored = store.publish(spec, weights, digest=hashlib.sha256(content).hexdigest())
    store.discard(spec)
    store.marks.touch(model_id, used)
    return stored


def publish_folder(store: ModelStore, model_id: str, size: int) -> StoredModel:
    spec = spec_of(model_id)
    folder = store.workspace(spec) / "folder"
    folder.mkdir()
    (folder / "a").write_bytes(b"a" * (size - 1))
    (folder / "b").write_bytes(b"b")
    files = hash_tree(folder, ["a", "b"])
    stored = store.publish(spec, folder, digest=tree_digest(files), files=files)
    store.discard(spec)
    return stored


def ids(store: ModelStore) -> list[str]:
    return [stored.model_id for stored in store.list()]


def test_who_was_used_longest_ago_makes_room(store: ModelStore) -> None:
    old = publish(store, "old", b"o" * 40, NOW)
    publish(store, "new", b"n" * 40, NOW + 5)
    store.reserve(spec_of("coming"), kept=30)
    assert ids(store) == ["new"]
    assert not old.path.exists()
    assert store.marks.used("old") == 0.0


def test_a_folder_makes_room_as_a_whole(store: ModelStore) -> None:
    folder = publish_folder(store, "folder", 90)
    store.reserve(spec_of("coming"), kept=80)
    assert ids(store) == []
    assert not folder.path.exists()


def test_what_is_pinned_stays_and_the_pull_is_refused(store: ModelStore) -> None:
    publish(store, "pinned", b"o" * 80, NOW)
    publish(store, "other", b"n" * 20, NOW + 5)
    store.marks.pin("pinned")
    with pytest.raises(DiskBudgetExceeded):
        store.reserve(spec_of("coming"), kept=30)
    assert ids(store) == ["other", "pinned"]  # nothing goes in vain
    store.reserve(spec_of("coming"), kept=20)
    assert ids(store) == ["pinned"]
    store.marks.unpin("pinned")
    store.reserve(spec_of("coming"), kept=30)
    assert ids(store) == []


def test_a_pin_holds_for_all_who_share_the_weights(store: ModelStore) -> None:
    publish(store, "one", b"o" * 80)
    publish(store, "two", b"o" * 80)
    store.marks.pin("two")
    with pytest.raises(DiskBudgetExceeded):
        store.reserve(spec_of("coming"), kept=30)
    assert ids(store) == ["one", "two"]


def test_what_is_loaded_stays_until_it_is_let_go(store: ModelStore) -> None:
    stored = publish(store, "loaded", b"o" * 80)
    first, second = store.hold(stored, NOW + 7), store.hold(stored, NOW + 9)
    assert store.marks.used("loaded") == NOW + 9
    first.release()
    with pytest.raises(DiskBudgetExceeded):
        store.reserve(spec_of("coming"), kept=30)
    second.release()
    store.reserve(spec_of("coming"), kept=30)
    with pytest.raises(ModelNotFound):
        store.hold(stored, NOW)


HOLDER = """
import sys
from pathlib import Path
from models.store import ModelStore
(stored,) = (store := ModelStore(Path(sys.argv[1]))).list()
lock = store.hold(stored, 1.0)
print("held", flush=True)
sys.stdin.read()
"""


def test_what_another_process_has_loaded_stays_as_long_as_it_lives(store: ModelStore) -> None:
    publish(store, "loaded", b"o" * 80)
    root = Path(__file__).parents[3]
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, store.root],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=root,
        env={**os.environ, "PYTHONPATH": str(root)},
    )
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        with pytest.raises(DiskBudgetExceeded):
            store.reserve(spec_of("coming"), kept=30)
    finally:
        holder.kill()
        holder.communicate()
    store.reserve(spec_of("coming"), kept=30)
    assert ids(store) == []


def test_the_model_that_is_pulled_anew_does_not_make_room_for_itself(store: ModelStore) -> None:
    publish(store, "mine", b"o" * 80)
    with pytest.raises(DiskBudgetExceeded):
        store.reserve(spec_of("mine"), kept=30)
    assert ids(store) == ["mine"]


def test_a_disk_that_is_full_anyhow_costs_no_model(tmp_path: Path) -> None:
    store = ModelStore(tmp_path, budget_bytes=2**60)
    publish(store, "here", b"o")
    with pytest.raises(DiskBudgetExceeded, match="the disk is full"):
        store.reserve(spec_of("coming"), kept=2**60)
    assert ids(store) == ["here"]


def test_an_unreferenced_blob_goes_before_any_model(store: ModelStore) -> None:
    publish(store, "kept", b"k" * 40, used=0.0)
    publish(store, "orphan", b"o" * 40)
    (store.root / "refs" / "orphan.json").unlink()
    store.marks.touch("kept", 1.0)
    store.reserve(spec_of("coming"), kept=50)
    assert ids(store) == ["kept"]


def test_removing_a_model_forgets_its_marks(store: ModelStore) -> None:
    publish(store, "mine", b"m")
    store.marks.pin("mine")
    store.remove("mine")
    assert not store.marks.is_pinned("mine")
    assert store.marks.used("mine") == 0.0


def test_sound_weights_are_found_sound(store: ModelStore) -> None:
    publish(store, "file", b"m" * 10)
    publish_folder(store, "folder", 10)
    seen: list[int] = []
    for model_id in ("file", "folder"):
        checked = store.check(model_id, seen.append)
        assert (checked.damaged, checked.set_aside) == ((), None)
    assert seen == [10, 9, 10]
    assert ids(store) == ["file", "folder"]


def test_damaged_weights_are_set_aside_for_all_who_have_them(store: ModelStore) -> None:
    stored = publish(store, "one", b"good")
    publish(store, "two", b"good")
    stored.path.write_bytes(b"evil")
    os.utime(stored.path, (1.0, 1.0))
    checked = store.check("one")
    assert checked.set_aside is not None
    assert checked.set_aside.read_bytes() == b"evil"
    assert len(checked.damaged) == 1
    assert ids(store) == []
    since = checked.set_aside.stat().st_mtime
    assert since > 1.0
    assert store.sweep(since + 1) == 0  # somebody may want to look at them
    assert store.sweep(since + 2 * ABANDONED_AFTER_S) == 4
    assert publish(store, "one", b"good").path.read_bytes() == b"good"


def test_the_damaged_files_of_a_folder_are_named(store: ModelStore) -> None:
    stored = publish_folder(store, "folder", 10)
    (stored.path / "stored-by-hand").write_bytes(b"unknown files are nobody's business")
    root = store.root / "blobs" / "sha256" / stored.digest.removeprefix("sha256:")
    (root / "b").unlink()
    checked = store.check("folder")
    assert checked.damaged == ("b",)
    assert checked.set_aside is not None
    assert (checked.set_aside / "a").exists()
    assert not root.exists()


@pytest.mark.parametrize("model_id", ["absent", "../refs/mine", ""])
def test_what_is_not_here_cannot_be_checked(store: ModelStore, model_id: str) -> None:
    with pytest.raises(ModelNotFound):
        store.check(model_id)


def test_nothing_makes_room_while_a_ref_cannot_be_understood(store: ModelStore, tmp_path: Path) -> None:
    """A later release may have pinned what it names: after a rollback that cannot be read."""
    kept = publish(store, "old", b"o" * 40, NOW)
    publish(store, "later", b"l" * 40, NOW + 5)
    (ref,) = (tmp_path / "models" / "refs").glob("later.json")
    ref.write_bytes(b'{"model": "later", "source": {"kind": "of tomorrow"}}')
    with pytest.raises(DiskBudgetExceeded):
        store.reserve(spec_of("coming"), kept=30)
    assert kept.path.exists()
    assert ids(store) == ["old"]


def test_a_disk_that_does_not_answer_is_no_damage(store: ModelStore, monkeypatch: pytest.MonkeyPatch) -> None:
    stored = publish(store, "one", b"o" * 40)

    def fail(*_: object) -> str:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(references, "file_digest", fail)
    with pytest.raises(WeightsUnreadable, match="Input/output error; nothing was changed"):
        store.check("one")
    assert ids(store) == ["one"]
    assert stored.path.exists()


def test_what_another_pull_replaced_meanwhile_is_not_set_aside(
    store: ModelStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(store, "one", b"o" * 40).path.write_bytes(b"x" * 40)
    whole = references.file_digest

    def replace_first(path: Path, tell: OnBytes | None) -> str:
        found = whole(path, tell)
        publish(store, "one", b"n" * 40)
        return found

    monkeypatch.setattr(references, "file_digest", replace_first)
    assert store.check("one").damaged == ()
    assert store.find(spec_of("one")) is not None
