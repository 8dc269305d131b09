"""A server on this machine that speaks Hugging Face's protocol, and misbehaves as it is told to."""

import hashlib
import json
import re
import socket
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

from models.tree import TreeFile, tree_digest

CONFIG = {
    "model_type": "llama",
    "max_position_embeddings": 128,
    "num_hidden_layers": 1,
    "hidden_size": 8,
    "vocab_size": 8,
    "num_attention_heads": 1,
}
"""The `config.json` of a model as small as can be."""
COMMIT = "c0ffee" * 6 + "c0de"


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
    always_drops: bool = False
    cut: bool = False
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


class Handler(BaseHTTPRequestHandler):
    """One connection to the server."""

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
        if does.cut:
            self._hang_up()
        elif does.status != 200:
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
            dropped = does.drop_after is not None and at >= does.drop_after
            if dropped or does.cut:
                does.drop_after = does.drop_after if does.always_drops else None
                self._hang_up()
                return
            try:
                self.wfile.write(content[at : at + 65536])
            except OSError:
                return
            at += 65536

    def _hang_up(self) -> None:
        self.close_connection = True
        self.connection.shutdown(socket.SHUT_RDWR)

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


@dataclass(frozen=True)
class Server:
    """A running server: where it is, and what it does."""

    url: str
    behaviour: Behaviour


def files_of(folder: Path) -> dict[str, bytes]:
    """Read a folder as what it holds by name: to be held against what was served."""
    found = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in found}


def digest_of(files: dict[str, bytes]) -> str:
    """What the store calls a model of these files."""
    return tree_digest(
        TreeFile(path=path, sha256=hashlib.sha256(content).hexdigest(), size_bytes=len(content))
        for path, content in files.items()
    )
