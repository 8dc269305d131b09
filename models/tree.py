"""Models of several files: what their content address is, and which paths may lie in one.

Knows folders and digests; must not know where the files come from, nor where the store keeps them.
"""

import hashlib
import stat
from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath

import msgspec

from models.catalog import Format
from models.disk import OnBytes, file_digest

# What an engine reads of a folder of safetensors: the weights, the configuration, the tokenizer.
SAFETENSORS_FILES = (
    "*.safetensors",
    "*.safetensors.index.json",
    "config.json",
    "generation_config.json",
    "tokenizer*",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.*",
    "merges.txt",
    "spiece.model",
    "sentencepiece*.model",
    "chat_template*",
    "preprocessor_config.json",
    "processor_config.json",
    # How sentence-transformers makes an embedding of tokens' states.
    "modules.json",
    "sentence_*_config.json",
    "*_Pooling/config.json",
    "*_Dense/config.json",
    "*_Dense/*.safetensors",
)
GGUF_FILES = ("*.gguf",)


class TreeFile(msgspec.Struct, frozen=True, kw_only=True):
    """One file of a model.

    Attributes:
        path: Within the folder, with `/`.
        mtime_ns: Of a file that is used where its owner has it, else None.
    """

    path: str
    sha256: str
    size_bytes: int
    mtime_ns: int | None = None


def tree_digest(files: Iterable[TreeFile]) -> str:
    """Return the content address (hex) of a folder: the sha256 of what `sha256sum` prints of its files.

    The lines are in the order of the paths' bytes, so `sha256sum` and `LC_ALL=C sort -k2` find it too.
    """
    lines = sorted((file.path.encode(), file.sha256) for file in files)
    return hashlib.sha256(
        b"".join(sha256.encode() + b"  " + path + b"\n" for path, sha256 in lines)
    ).hexdigest()


def hash_tree(folder: Path, names: Iterable[str], tell: OnBytes | None = None) -> tuple[TreeFile, ...]:
    """Read every byte of these files; `tell` hears how many of all of them are done."""
    done, found = 0, []
    for name in sorted(names):
        size = (folder / name).stat().st_size
        sha256 = file_digest(folder / name, after(done, tell))
        found.append(TreeFile(path=name, sha256=sha256, size_bytes=size))
        done += size
    return tuple(found)


def after(before: int, tell: OnBytes | None) -> OnBytes:
    """Tell what is done of one file as what is done of all, of which `before` came earlier."""
    return lambda done: None if tell is None else tell(before + done)


def names_in(folder: Path) -> list[str]:
    """Return the paths of all regular files below a folder; links are not followed."""
    found = (path for path in folder.rglob("*") if stat.S_ISREG(path.lstat().st_mode))
    return sorted(path.relative_to(folder).as_posix() for path in found)


def is_whole(folder: Path, files: Iterable[TreeFile]) -> bool:
    """Whether all files are there, as large and (where that is known) as old as they were; reads no bytes."""
    for file in files:
        try:
            status = (folder / file.path).stat()
        except OSError:
            return False
        if not stat.S_ISREG(status.st_mode) or status.st_size != file.size_bytes:
            return False
        if file.mtime_ns not in (None, status.st_mtime_ns):
            return False
    return True


def is_inside(path: str) -> bool:
    """Whether a path from elsewhere names something inside the folder it is put in, on every system."""
    parts = path.split("/")
    return len(path) <= 500 and "\\" not in path and path.isprintable() and not {"", ".", ".."} & set(parts)


def matches(path: str, patterns: Sequence[str]) -> bool:
    """Whether one of the patterns names the path; a `*` stays within one folder."""
    parts = PurePosixPath(path).parts
    wanted = [PurePosixPath(pattern).parts for pattern in patterns]
    return any(
        len(parts) == len(want) and all(fnmatchcase(*pair) for pair in zip(parts, want, strict=True))
        for want in wanted
    )


def entry_of(model_format: Format, files: Sequence[TreeFile]) -> str:
    """Return what of a folder an engine is given: the first GGUF file (it names its other parts), or all."""
    if model_format == "gguf":
        return min((file.path for file in files if file.path.endswith(".gguf")), default="")
    return ""
