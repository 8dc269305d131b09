"""The model of the demo itself, where it has been fetched."""

from pathlib import Path

import pytest

from models.catalog import load_catalog
from models.disk import file_digest
from models.fit import MIB, estimate, fits
from models.formats import read_gguf_header
from models.store import ModelStore

pytestmark = pytest.mark.engine


def test_smollm2_is_what_the_catalog_says(shared_data: Path) -> None:
    spec = load_catalog().require("smollm2-135m-instruct")
    stored = ModelStore(shared_data / "models").find(spec)
    assert stored is not None
    assert stored.size_bytes == spec.size_bytes
    assert file_digest(stored.path) == spec.sha256
    header = read_gguf_header(stored.path)
    assert (header.architecture, header.layers, header.context_length) == ("llama", 30, spec.context_length)
    assert (header.kv_heads[0], header.key_length, header.vocabulary_size) == (3, 64, 49152)
    assert header.has_chat_template
    needed = estimate(header, size_bytes=stored.size_bytes, context=spec.context_length, slots=spec.slots)
    assert fits(needed, 2048 * MIB)
