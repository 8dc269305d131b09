"""Reading what weights files say about themselves. Knows file formats, not where files come from."""

from pathlib import Path

from models.header import GgufHeader

__all__ = ["GgufHeader", "read_gguf_header"]


def read_gguf_header(path: Path) -> GgufHeader:
    """Read the header of a GGUF file, without its weights.

    Raises:
        FormatUnsupported: Not a GGUF file, truncated, or of a version we do not know.
    """
    raise NotImplementedError(path)
