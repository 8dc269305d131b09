"""The catalog: which models exist, where their weights come from, and what they can do.

Owns the meaning of a catalog file. Must not know where weights lie on this disk, nor how they get there:
the Hub reads catalogs too and never touches weights.
"""

import re
import tomllib
from collections.abc import Iterable, Iterator
from importlib import resources
from pathlib import Path
from typing import Literal

import msgspec

from models.errors import CatalogInvalid, ModelNotFound

Format = Literal["gguf", "safetensors"]
Capability = Literal["chat", "completions", "embeddings", "rerank", "tools", "vision"]

MAX_ID_LENGTH = 128
DEFAULT_SLOTS = 4

_ID = re.compile(r"[a-z0-9][a-z0-9._:/-]*")
_SHA256 = re.compile(r"[0-9a-f]{64}")


class _Entry(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A piece of a catalog file: whatever it does not name is an error, so a typo never passes silently."""


class FileSource(_Entry, frozen=True, kw_only=True, tag_field="kind", tag="file"):
    """Weights that already lie on the node's disk; `path` is absolute or starts with `~`."""

    path: str

    def __post_init__(self) -> None:
        if not self.path.startswith(("/", "~")):
            raise ValueError("`path` must be absolute: a node has no fixed working directory")


class WheelSource(_Entry, frozen=True, kw_only=True, tag_field="kind", tag="pypi-wheel"):
    """Weights inside a wheel on a package index (or a mirror, or a folder pip is configured for)."""

    package: str
    version: str
    member: str

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", self.package):
            raise ValueError("`package` is not a distribution name")
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9.!+]*", self.version):
            raise ValueError("`version` is not one exact version")


class PathSource(_Entry, frozen=True, kw_only=True, tag_field="kind", tag="path"):
    """A file or a folder on the node's disk that is used where it lies; absolute, or starts with `~`."""

    path: str

    def __post_init__(self) -> None:
        if not self.path.startswith(("/", "~")):
            raise ValueError("`path` must be absolute: a node has no fixed working directory")


class HuggingFaceSource(_Entry, frozen=True, kw_only=True, tag_field="kind", tag="huggingface"):
    """Files of a Hugging Face repository, or of a mirror named by HF_ENDPOINT.

    Attributes:
        file: The one file that is the weights; None where they are several.
        files: Patterns of paths, `*` within one folder. Without either: what an engine needs of a repository
            of safetensors.
    """

    repository: str
    file: str | None = None
    files: tuple[str, ...] = ()
    revision: str = "main"

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*/[A-Za-z0-9][A-Za-z0-9._-]*", self.repository):
            raise ValueError("`repository` is not owner/name")
        if self.file is not None and self.files:
            raise ValueError("`file` and `files` exclude each other")
        for path in (*self.files, *([] if self.file is None else [self.file])):
            if {"", ".", ".."} & set(path.split("/")):
                raise ValueError(f"`file` {path!r} is not a path inside the repository")


class EndpointSource(_Entry, frozen=True, kw_only=True, tag_field="kind", tag="endpoint"):
    """No weights that a node could fetch: only endpoints of owners' own answer for the model."""


Source = FileSource | PathSource | WheelSource | HuggingFaceSource | EndpointSource


class ModelSpec(_Entry, frozen=True, kw_only=True):
    """One catalog entry.

    Attributes:
        id: What a request names; lowercase, `[a-z0-9][a-z0-9._:/-]*`.
        sha256: Of the weights, 64 hex digits; of several files, that of their list (`models.tree`). Only a
            `file`, a `path`, an `endpoint` or a pinned `huggingface` source may omit it.
        size_bytes: Of the weights, all files together. Only a wheel must say it: the others can be asked.
        context_length: Tokens in one slot, prompt and answer together.
        slots: Requests one replica answers at the same time.
        chat_template: Jinja in place of the template in the weights, as where that knows no tools.
    """

    id: str
    name: str
    source: Source
    context_length: int
    format: Format = "gguf"
    sha256: str | None = None
    size_bytes: int | None = None
    capabilities: frozenset[Capability] = frozenset({"chat", "completions"})
    slots: int = DEFAULT_SLOTS
    chat_template: str = ""
    license: str = ""
    description: str = ""

    def __post_init__(self) -> None:
        if not is_model_id(self.id):
            raise ValueError(f"`id` {self.id!r} is not [a-z0-9][a-z0-9._:/-]* of at most {MAX_ID_LENGTH}")
        if self.sha256 is not None and not _SHA256.fullmatch(self.sha256):
            raise ValueError("`sha256` is not 64 lowercase hex digits")
        if self.context_length < 1 or self.slots < 1:
            raise ValueError("`context_length` and `slots` are at least 1")
        if self.size_bytes is not None and self.size_bytes < 1:
            raise ValueError("`size_bytes` is at least 1")
        _check_capabilities(self)
        _check_pinned(self)


def is_model_id(text: str) -> bool:
    """Whether `text` may be the id of a model."""
    return len(text) <= MAX_ID_LENGTH and _ID.fullmatch(text) is not None


def _check_capabilities(spec: ModelSpec) -> None:
    """Refuse what no engine of a node's does: nothing, or generating and embedding with the same weights."""
    if not spec.capabilities:
        raise ValueError("`capabilities` is empty: name what the model does, or leave the key out")
    generates, ranks = (
        spec.capabilities & {"chat", "completions"},
        spec.capabilities & {"embeddings", "rerank"},
    )
    if generates and ranks and not isinstance(spec.source, EndpointSource):
        raise ValueError(
            "`capabilities` has both what generates (chat, completions) and what does not (embeddings, "
            "rerank): an engine does one of them; make two entries with the same source"
        )


def _check_pinned(spec: ModelSpec) -> None:
    """Refuse a remote source whose bytes could change under the same id."""
    if isinstance(spec.source, FileSource | PathSource | EndpointSource):
        return
    if isinstance(spec.source, WheelSource) and spec.size_bytes is None:
        raise ValueError("`size_bytes` is needed: memory and disk are planned before the download")
    if spec.sha256 is None and not (
        isinstance(spec.source, HuggingFaceSource) and re.fullmatch(r"[0-9a-f]{40}", spec.source.revision)
    ):
        raise ValueError("`sha256` is needed, or a huggingface `revision` that is a full commit")
    source = spec.source
    if spec.format == "gguf" and isinstance(source, HuggingFaceSource) and not (source.file or source.files):
        raise ValueError("`file` or `files` is needed: a repository has GGUF files of many kinds")


class _File(_Entry, frozen=True, kw_only=True):
    models: list[ModelSpec] = []


class Catalog:
    """The models by id, in the order they were first named."""

    def __init__(self, specs: Iterable[ModelSpec] = ()) -> None:
        self._specs = {spec.id: spec for spec in specs}

    def get(self, model_id: str) -> ModelSpec | None:
        """Return the entry, or None if there is none."""
        return self._specs.get(model_id)

    def require(self, model_id: str) -> ModelSpec:
        """Return the entry.

        Raises:
            ModelNotFound: No such entry.
        """
        spec = self._specs.get(model_id)
        if spec is None:
            raise ModelNotFound(model_id)
        return spec

    def __iter__(self) -> Iterator[ModelSpec]:
        return iter(self._specs.values())

    def __len__(self) -> int:
        return len(self._specs)

    def __contains__(self, model_id: object) -> bool:
        return model_id in self._specs


def load_catalog(*paths: Path, packaged: bool = True) -> Catalog:
    """Read the packaged catalog and then `paths`; a later entry replaces an earlier one of the same id.

    Args:
        *paths: The owner's own catalog files, in rising precedence.
        packaged: Whether to begin with the catalog that Porten ships.

    Raises:
        CatalogInvalid: A file is missing or wrong; the message names the file and the key.
    """
    specs: list[ModelSpec] = []
    if packaged:
        resource = resources.files("models") / "catalog.toml"
        specs += _parse(resource.read_text("utf-8"), Path("models/catalog.toml"))
    for path in paths:
        specs += _read(path)
    return Catalog(specs)


def _read(path: Path) -> list[ModelSpec]:
    try:
        text = path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise CatalogInvalid(path, f"cannot be read: {error}") from error
    return _parse(text, path)


def _parse(text: str, path: Path) -> list[ModelSpec]:
    try:
        found = msgspec.convert(tomllib.loads(text), _File).models
    except (tomllib.TOMLDecodeError, msgspec.ValidationError) as error:
        raise CatalogInvalid(path, str(error)) from error
    ids = [spec.id for spec in found]
    for model_id in ids:
        if ids.count(model_id) > 1:
            raise CatalogInvalid(path, f"`id` {model_id!r} stands there twice")
    return found
