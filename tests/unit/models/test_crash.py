"""The store after a crash at every point of every change, with what was not synced torn or lost."""

import contextlib
import hashlib
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.catalog import FileSource, ModelSpec
from models.disk import Disk
from models.errors import ModelNotFound
from models.store import ModelStore, StoredModel
from models.tree import hash_tree, tree_digest


class Crash(BaseException):
    """The power went."""


class CrashingDisk(Disk):
    """Ends the world at the n-th point, and then forgets half of every file that was never synced."""

    def __init__(self, crash_at: int) -> None:
        self.points = 0
        self._crash_at = crash_at
        self._unsynced: set[Path] = set()

    def wrote(self, path: Path) -> None:
        """Somebody wrote a file without syncing it."""
        self._unsynced.add(path)

    def sync(self, path: Path) -> None:
        # Remembered instead of done: thousands of real ones take minutes, and no test can pull the plug.
        self._point()
        self._unsynced.discard(path)

    def write(self, path: Path, content: bytes) -> None:
        self._point()
        self.wrote(path)
        super().write(path, content)
        self._point()

    def replace(self, source: Path, target: Path) -> None:
        self._point()
        super().replace(source, target)
        moved = {path for path in self._unsynced if path.is_relative_to(source)}
        gone = {path for path in self._unsynced if path.is_relative_to(target)}
        self._unsynced -= moved | gone
        self._unsynced |= {target / path.relative_to(source) for path in moved}
        self._point()

    def unlink(self, path: Path) -> None:
        self._point()
        super().unlink(path)
        self._point()

    def make_folder(self, path: Path) -> None:
        self._point()
        super().make_folder(path)

    def _point(self) -> None:
        self.points += 1
        if self.points == self._crash_at:
            for path in self._unsynced:
                if path.is_file():
                    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
            raise Crash


def spec_of(model_id: str, content: bytes | None = None) -> ModelSpec:
    return ModelSpec(
        id=model_id,
        name="",
        source=FileSource(path="/nowhere"),
        context_length=1,
        sha256=hashlib.sha256(content).hexdigest() if content else None,
    )


def publish(store: ModelStore, disk: CrashingDisk, spec: ModelSpec, content: bytes) -> None:
    weights = store.workspace(spec) / "weights"
    weights.write_bytes(content)
    disk.wrote(weights)
    store.publish(spec, weights, digest=hashlib.sha256(content).hexdigest())
    store.discard(spec)


def publish_folder(store: ModelStore, disk: CrashingDisk, model_id: str, content: bytes) -> None:
    spec = spec_of(model_id)
    folder = store.workspace(spec) / "folder"
    (folder / "below").mkdir(parents=True, exist_ok=True)
    for name in FILES:
        (folder / name).write_bytes(content)
        disk.wrote(folder / name)
    files = hash_tree(folder, FILES)
    store.publish(spec, folder, digest=tree_digest(files), files=files)
    store.discard(spec)


def remove(store: ModelStore, model_id: str) -> None:
    try:
        store.remove(model_id)
    except ModelNotFound:
        return


FILES = ("config.json", "below/model.safetensors")
Step = Callable[[ModelStore, CrashingDisk], None]
STEPS: list[Step] = [
    lambda store, disk: publish(store, disk, spec_of("a"), b"first weights"),
    lambda store, disk: publish(store, disk, spec_of("a"), b"second weights"),
    lambda store, disk: publish(store, disk, spec_of("b", b"second weights"), b"second weights"),
    lambda store, disk: remove(store, "a"),
    lambda store, disk: remove(store, "b"),
    lambda store, disk: (store.adopt(spec_of("c", b"second weights")), None)[1],
    lambda store, disk: (store.sweep(10.0**10), None)[1],
    lambda store, disk: publish_folder(store, disk, "f", b"first folder"),
    lambda store, disk: publish_folder(store, disk, "f", b"second folder"),
    lambda store, disk: publish_folder(store, disk, "a", b"second folder"),
    lambda store, disk: remove(store, "f"),
]


def run(root: Path, steps: list[int], crash_at: int) -> CrashingDisk:
    disk = CrashingDisk(crash_at)
    store = ModelStore(root, disk=disk)
    for step in steps:
        STEPS[step](store, disk)
    return disk


def digest_of(model: StoredModel) -> str:
    if not model.files:
        return hashlib.sha256(model.path.read_bytes()).hexdigest()
    root = model.path if model.path.is_dir() else model.path.parent
    return tree_digest(hash_tree(root, FILES))


def check_whole(root: Path) -> None:
    """Everything a fresh process finds is whole."""
    store = ModelStore(root)
    for model in store.list():
        assert "sha256:" + digest_of(model) == model.digest
        assert store.find(spec_of(model.model_id)) == model


def check_recovers(root: Path) -> None:
    """The same work succeeds after the crash, and nothing of it stays when all is removed."""
    run(root, [0, 1, 2, 5, 8], 0)
    assert [model.model_id for model in ModelStore(root).list()] == ["a", "b", "c", "f"]
    check_whole(root)
    for model_id in ("a", "b", "c", "f"):
        ModelStore(root).remove(model_id)
    ModelStore(root).sweep(10.0**10)
    assert list((root / "blobs" / "sha256").iterdir()) == []
    assert not any((root / "partial").iterdir())


def crash(root: Path, steps: list[int], crash_at: int) -> None:
    with pytest.raises(Crash):
        run(root, steps, crash_at)


def test_a_crash_at_any_point_leaves_every_model_whole_or_absent(tmp_path: Path) -> None:
    steps = [0, 1, 2, 3, 5, 4, 7, 8, 9, 10, 6]
    points = run(tmp_path / "0", steps, 0).points
    assert points > 80
    for point in range(1, points + 1):
        root = tmp_path / str(point)
        crash(root, steps, point)
        check_whole(root)
        check_recovers(root)


def test_a_replaced_model_is_the_old_or_the_new_one_at_any_point(tmp_path: Path) -> None:
    before, after = run(tmp_path / "0", [0], 0).points, run(tmp_path / "1", [0, 1], 0).points
    found = set()
    for point in range(before + 1, after + 1):
        root = tmp_path / f"crash-{point}"
        crash(root, [0, 1], point)
        (model,) = ModelStore(root).list()
        found.add(model.path.read_bytes())
    assert found == {b"first weights", b"second weights"}


@settings(max_examples=60, deadline=None)
@given(
    steps=st.lists(st.integers(0, len(STEPS) - 1), min_size=1, max_size=8),
    crashes=st.lists(st.integers(1, 90), max_size=3),
)
def test_crash_after_crash_in_any_order_of_work(
    tmp_path_factory: pytest.TempPathFactory, steps: list[int], crashes: list[int]
) -> None:
    root = tmp_path_factory.mktemp("crashes")
    for crash_at in crashes:
        with contextlib.suppress(Crash):
            run(root, steps, crash_at)
        check_whole(root)
    check_recovers(root)
