"""Weights that are used where their owner has them."""

import hashlib
import json
import os
from pathlib import Path

import pytest

from models.catalog import ModelSpec, PathSource
from models.download import pull
from models.errors import DigestMismatch, DownloadFailed, FormatUnsupported
from models.store import ModelStore
from models.tree import hash_tree, tree_digest
from tests.integration.models.served import CONFIG

NAMES = ("config.json", "model.safetensors", "tokenizer.json")


def spec_of(path: Path, **changes: object) -> ModelSpec:
    values = {"id": "mine", "name": "Mine", "source": PathSource(path=str(path)), "context_length": 128}
    return ModelSpec(**{**values, **changes})  # type: ignore[arg-type]


@pytest.fixture
def own_file(tmp_path: Path, weights: bytes) -> Path:
    path = tmp_path / "own" / "tiny.gguf"
    path.parent.mkdir()
    path.write_bytes(weights)
    return path


@pytest.fixture
def own_folder(tmp_path: Path) -> Path:
    folder = tmp_path / "own-folder"
    folder.mkdir()
    header = json.dumps({"a": {"dtype": "U8", "shape": [64], "data_offsets": [0, 64]}}).encode()
    (folder / "model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + bytes(64))
    (folder / "config.json").write_text(json.dumps(CONFIG))
    (folder / "tokenizer.json").write_text("{}")
    (folder / "README.md").write_text("not part of the model")
    return folder


def blobs(store: ModelStore) -> list[Path]:
    folder = store.root / "blobs" / "sha256"
    return list(folder.iterdir()) if folder.is_dir() else []


async def test_a_file_is_used_where_it_lies(store: ModelStore, own_file: Path, weights: bytes) -> None:
    stored = await pull(spec_of(own_file), store)
    assert (stored.path, stored.in_place) == (own_file, True)
    assert stored.digest == "sha256:" + hashlib.sha256(weights).hexdigest()
    assert own_file.stat().st_nlink == 1
    assert blobs(store) == []
    assert store.find(spec_of(own_file)) == stored


async def test_it_is_hashed_once_and_again_once_it_was_touched(store: ModelStore, own_file: Path) -> None:
    first = await pull(spec_of(own_file), store)
    phases: list[str] = []
    await pull(spec_of(own_file), store, on_progress=lambda progress: phases.append(progress.phase))
    assert "verifying" not in phases
    with own_file.open("ab") as file:
        file.write(b"more")
    assert store.find(spec_of(own_file)) is None
    again = await pull(spec_of(own_file), store)
    assert again.digest != first.digest


async def test_same_size_other_time_is_noticed(store: ModelStore, own_file: Path) -> None:
    await pull(spec_of(own_file), store)
    os.utime(own_file, ns=(1, own_file.stat().st_mtime_ns + 1))
    assert store.find(spec_of(own_file)) is None


async def test_a_folder_is_used_where_it_lies(store: ModelStore, own_folder: Path) -> None:
    spec = spec_of(own_folder, format="safetensors")
    stored = await pull(spec, store)
    assert (stored.path, stored.in_place) == (own_folder, True)
    assert tuple(file.path for file in stored.files) == NAMES
    assert stored.digest == "sha256:" + tree_digest(hash_tree(own_folder, NAMES))
    assert blobs(store) == []
    (own_folder / "README.md").write_text("may change")
    assert store.find(spec) == stored
    (own_folder / "config.json").write_text(json.dumps({**CONFIG, "vocab_size": 9}))
    assert store.find(spec) is None


async def test_a_split_file_is_named_by_its_first_part(
    store: ModelStore, own_file: Path, weights: bytes
) -> None:
    first, second = (own_file.with_name(f"m-0000{number}-of-00002.gguf") for number in (1, 2))
    first.write_bytes(weights)
    with pytest.raises(DownloadFailed, match="all parts"):
        await pull(spec_of(first), store)
    second.write_bytes(weights)
    stored = await pull(spec_of(first), store)
    assert stored.path == first
    assert stored.size_bytes == 2 * len(weights)
    assert {file.path for file in stored.files} == {first.name, second.name}


async def test_removing_it_takes_nothing_from_its_owner(
    store: ModelStore, own_file: Path, own_folder: Path
) -> None:
    await pull(spec_of(own_file), store)
    await pull(spec_of(own_folder, id="folder", format="safetensors"), store)
    assert store.remove("mine") == 0
    assert store.remove("folder") == 0
    assert own_file.exists()
    assert len(list(own_folder.iterdir())) == 4


async def test_damage_is_found_and_nothing_is_moved(store: ModelStore, own_file: Path) -> None:
    stored = await pull(spec_of(own_file), store)
    status = own_file.stat()
    damaged = bytearray(own_file.read_bytes())
    damaged[-1] ^= 1
    own_file.write_bytes(damaged)
    os.utime(own_file, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert store.find(spec_of(own_file)) == stored  # neither size nor time tells
    checked = store.check("mine")
    assert checked.damaged == (own_file.name,)
    assert checked.set_aside is None
    assert own_file.exists()
    assert store.find(spec_of(own_file)) is None


async def test_it_counts_against_no_budget(tmp_path: Path, own_file: Path) -> None:
    store = ModelStore(tmp_path / "models", budget_bytes=1)
    assert (await pull(spec_of(own_file), store)).in_place


async def test_other_bytes_than_the_catalog_promises_are_refused(store: ModelStore, own_file: Path) -> None:
    with pytest.raises(DigestMismatch):
        await pull(spec_of(own_file, sha256="0" * 64), store)
    assert store.list() == []
    assert own_file.exists()


async def test_what_is_not_there_is_said(store: ModelStore, tmp_path: Path) -> None:
    with pytest.raises(DownloadFailed, match="is not here"):
        await pull(spec_of(tmp_path / "nothing.gguf"), store)


async def test_a_folder_without_weights_is_refused(store: ModelStore, tmp_path: Path) -> None:
    with pytest.raises(FormatUnsupported, match="holds no safetensors"):
        await pull(spec_of(tmp_path, format="safetensors"), store)


async def test_a_link_out_of_the_folder_is_refused(
    store: ModelStore, own_folder: Path, tmp_path: Path
) -> None:
    secret = tmp_path / "secret"
    secret.write_text("{}")
    (own_folder / "tokenizer.json").unlink()
    (own_folder / "tokenizer.json").symlink_to(secret)
    with pytest.raises(FormatUnsupported, match="leads out of the folder"):
        await pull(spec_of(own_folder, format="safetensors"), store)
    assert store.list() == []


@pytest.mark.parametrize("kind", ["pipe", "device", "folder", "broken"])
async def test_what_is_no_file_is_refused_and_never_opened(
    store: ModelStore, own_folder: Path, kind: str
) -> None:
    path = own_folder / "tokenizer.json"
    path.unlink()
    if kind == "pipe":
        os.mkfifo(path)  # opening it would wait for ever
    elif kind == "device":
        path.symlink_to("/dev/zero")
    elif kind == "folder":
        path.mkdir()
    else:
        path.symlink_to("nowhere")
    with pytest.raises(FormatUnsupported, match=r"is not a file|leads out of the folder"):
        await pull(spec_of(own_folder, format="safetensors"), store)
    assert store.list() == []


@pytest.mark.parametrize("path", ["/dev/zero", "/dev/null"])
async def test_a_device_is_no_model(store: ModelStore, path: str) -> None:
    with pytest.raises(DownloadFailed, match="is not here"):
        await pull(spec_of(Path(path)), store)


async def test_the_cache_of_hugging_face_may_keep_its_files_beside(
    store: ModelStore, own_folder: Path, tmp_path: Path
) -> None:
    cache = tmp_path / "models--owner--repo"
    snapshot, kept = cache / "snapshots" / "c0ffee", cache / "blobs"
    snapshot.mkdir(parents=True)
    kept.mkdir()
    for number, name in enumerate(NAMES):
        (own_folder / name).rename(kept / str(number))
        (snapshot / name).symlink_to(f"../../blobs/{number}")
    stored = await pull(spec_of(snapshot, format="safetensors"), store)
    assert tuple(file.path for file in stored.files) == NAMES
    assert store.check("mine").damaged == ()
