"""Weights made to harm, named by the owner's own catalog, given to a running daemon with the real engine."""

import hashlib
import json
import struct
from pathlib import Path
from typing import Any

import httpx
import pytest

pytestmark = [pytest.mark.engine, pytest.mark.timeout(240)]


def text(value: bytes) -> bytes:
    return struct.pack("<Q", len(value)) + value


def entry(key: bytes, kind: int, value: bytes) -> bytes:
    return text(key) + struct.pack("<I", kind) + value


def gguf(*entries: bytes, tensors: int = 0, after: bytes = b"") -> bytes:
    return b"GGUF" + struct.pack("<IQQ", 3, tensors, len(entries)) + b"".join(entries) + after


LLAMA = entry(b"general.architecture", 8, text(b"llama"))
CONTEXT = entry(b"llama.context_length", 4, struct.pack("<I", 512))
NUMBERS = {b"block_count": 2, b"embedding_length": 64, b"attention.head_count": 4, b"feed_forward_length": 64}
SHAPE = tuple(entry(b"llama." + key, 4, struct.pack("<I", value)) for key, value in NUMBERS.items())
WEIGHTS = {
    "nothing": b"GGUF",
    "cut": gguf(LLAMA, CONTEXT)[:-2],
    "endless": gguf(LLAMA, entry(b"a", 9, struct.pack("<IQ", 8, 2**63))),
    "nested": gguf(LLAMA, entry(b"a", 9, struct.pack("<IQ", 9, 3))),
    "twice": gguf(LLAMA, CONTEXT, CONTEXT),
    "layers": gguf(LLAMA, CONTEXT, entry(b"llama.block_count", 10, struct.pack("<Q", 2**64 - 1))),
    "wide": gguf(LLAMA, CONTEXT, *SHAPE[:1], entry(b"llama.embedding_length", 10, struct.pack("<Q", 2**62))),
    "beyond": gguf(LLAMA, CONTEXT, tensors=1, after=text(b"t") + struct.pack("<IQIQ", 1, 2**60, 0, 0)),
    "hollow": gguf(LLAMA, CONTEXT, *SHAPE),
}
"""The last can be read and is no model: the engine itself is to say so."""


@pytest.fixture
def catalog(tmp_path: Path) -> Path:
    entries = []
    for name, content in WEIGHTS.items():
        weights = tmp_path / f"{name}.gguf"
        weights.write_bytes(content)
        entries.append(
            f'[[models]]\nid = "bad/{name}"\nname = "{name}"\ncontext_length = 512\n'
            f'sha256 = "{hashlib.sha256(content).hexdigest()}"\n'
            f'source = {{ kind = "file", path = "{weights}" }}\n'
        )
    path = tmp_path / "bad.toml"
    path.write_text("".join(entries))
    return path


@pytest.fixture
def node_with_them(porten: Any, shared_data: Path, catalog: Path) -> Any:
    porten.settings |= {
        "PORTEN_ENGINES_DIR": str(shared_data / "engines"),
        "PORTEN_CATALOG": str(catalog),
    }
    return porten


async def test_each_ends_in_a_typed_error_and_the_daemon_goes_on(node_with_them: Any, tmp_path: Path) -> None:
    porten = node_with_them
    node = await porten.run("--local-only")
    base = json.loads(await porten("status", "--json"))["local_api"]
    async with httpx.AsyncClient(base_url=base, trust_env=False, timeout=60) as http:
        for name in WEIGHTS:
            body = {"model": f"bad/{name}", "messages": [{"role": "user", "content": "Hi"}]}
            answer = await http.post("/v1/chat/completions", json=body)
            error = answer.json()["error"]
            assert answer.status_code in (502, 503), (name, error)
            assert error["code"] in ("engine_error", "no_available_node"), (name, error)
            assert error["message"].startswith(f"model 'bad/{name}'"), error
            assert str(tmp_path) not in error["message"], "no path of this machine is told"
            assert node.process.returncode is None
    status = json.loads(await porten("status", "--json"))
    assert not status["replicas"]
    assert {model["state"] for model in status["models"]} == {"cold"}
    assert "Traceback" not in node.output
