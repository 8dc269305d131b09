"""The process that talks to Hugging Face. Run by path, with one JSON argument; imports nothing of Porten.

It ends with 0, or with 1 and a line of ANSWER and a JSON object with `reason` and `remedy`.

The library's own `hf_hub_download` writes to a file with a random name and deletes it on failure. Large files
had better go on where they stopped, so we take the metadata call and the transfer one by one.
"""

import errno
import itertools
import json
import os
import sys
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, cast
from urllib.parse import urlsplit

ANSWER = "porten-answer "
# Files that come at the same time: enough to fill a line with the small ones, too few to be a nuisance.
WORKERS = 4
# More than any repository has: a server must not make us collect for ever.
MOST_LISTED = 100_000
# Written at a time. The library's own 10 MB would look like a stall on a slow line, and be lost with it.
PIECE_BYTES = 256 * 1024
# A server that knows no ranges begins a file anew whenever the line breaks.
TIMES_OVER = 3
AGAIN = "Try again: it goes on where it stopped"


def carry_out(order: dict[str, Any]) -> None:
    """List the repository's files, or fetch those that are named."""
    place = {"repository": order["repository"], "revision": order["revision"]}
    if order.get("list"):
        list_files(place, Path(order["target"]))
        return
    if "order" in order:  # long lists come in a file: a command line has an end
        order = json.loads(Path(order["order"]).read_text())
    with ThreadPoolExecutor(WORKERS) as pool:
        running = [pool.submit(fetch, {**place, **file}) for file in order["files"]]
        for ended in as_completed(running):
            if error := ended.exception():
                _give_up(error)


def list_files(place: dict[str, str], target: Path) -> None:
    """Write down what files there are, how large, and with which digests."""
    from huggingface_hub import HfApi, RepoFile  # noqa: PLC0415 - not in our parent

    tree = HfApi().list_repo_tree(place["repository"], revision=place["revision"], recursive=True)
    files = [
        {
            "path": file.path,
            "size": file.size,
            "blob_id": file.blob_id,
            "sha256": file.lfs.sha256 if file.lfs else None,
        }
        for file in itertools.islice(tree, MOST_LISTED)
        if isinstance(file, RepoFile)
    ]
    target.write_text(json.dumps(files))


def fetch(order: dict[str, Any]) -> None:
    """Download one file, going on with what is there of the same version.

    Raises:
        ValueError: The server has another commit than the one pinned.
        TooMuch: It sends more than was to come, or the same again and again.
    """
    from huggingface_hub import constants, get_hf_file_metadata, hf_hub_url  # noqa: PLC0415 - not in our parent
    from huggingface_hub.file_download import http_get  # noqa: PLC0415 - the same

    constants.DOWNLOAD_CHUNK_SIZE = PIECE_BYTES
    url = hf_hub_url(order["repository"], order["file"], revision=order["revision"])
    found = get_hf_file_metadata(url)
    if len(order["revision"]) == 40 and found.commit_hash != order["revision"]:
        raise ValueError(f"the server has commit {found.commit_hash}, not {order['revision']}")
    target, etag = Path(order["target"]), found.etag or ""
    have = _usable(target, Path(order["version"]), etag, found.size)
    # A file in chunked storage has no plain location: the server redirects each request for it.
    location = url if found.xet_file_data else found.location
    with target.open("r+b") as file:
        file.seek(have)
        try:
            http_get(
                location,
                cast("BinaryIO", AtMost(file, order["size"])),
                resume_size=have,
                headers=_headers(url, location),
                expected_size=found.size,
            )
        except TooMuch:
            file.truncate(0)  # what such a server sent is no beginning to go on from
            raise


class TooMuch(Exception):
    """A server sends what nobody waits for."""


class AtMost:
    """A file that takes no more than there is room for: a server must not fill the disk, nor go on for ever.

    Args:
        file: Where the bytes go.
        size: Most that it may become, in bytes: what the catalog, or the repository's list, says.
    """

    def __init__(self, file: BinaryIO, size: int) -> None:
        self._file = file
        self._size = size
        self._written = 0

    def write(self, data: bytes) -> int:
        """Write it all.

        Raises:
            TooMuch: The file would be larger, or most of it came before.
        """
        self._written += len(data)
        if self._file.tell() + len(data) > self._size:
            raise TooMuch(f"the server sends more than the {self._size} bytes that were to come")
        if self._written > TIMES_OVER * self._size + PIECE_BYTES:
            raise TooMuch("the server breaks off and begins again, over and over")
        return self._file.write(data)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)


def version_file(target: Path) -> Path:
    """Return where the ETag of what lies in `target` is written down."""
    return target.with_name("etag")


def _usable(target: Path, beside: Path, etag: str, size: int | None) -> int:
    """Return how many bytes of this version are there, after throwing away those of any other."""
    same = bool(etag) and beside.exists() and beside.read_text() == etag and target.exists()
    have = target.stat().st_size if same else 0
    if not same or (size is not None and have > size):
        target.write_bytes(b"")
        beside.write_text(etag)
        have = 0
    return have


def _headers(url: str, location: str) -> dict[str, str]:
    """Return the library's headers; the token only goes to the host it is meant for, not to a CDN."""
    from huggingface_hub.utils import (  # type: ignore[attr-defined] # noqa: PLC0415 - not in our parent
        build_hf_headers,
    )

    same_host = urlsplit(url).netloc == urlsplit(location).netloc
    return dict(build_hf_headers(token=None if same_host else False))


def _explain(error: BaseException) -> dict[str, str]:
    """Say what happened without the library's advice, which is about its own functions, nor signed URLs."""
    status = getattr(getattr(error, "response", None), "status_code", None)
    for kind, (reason, remedy) in _KNOWN.items():
        if kind in {base.__name__ for base in type(error).__mro__}:
            return {"reason": reason or str(error), "remedy": remedy}
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return {"reason": "the disk is full", "remedy": f"Make room. {AGAIN}"}
    if status is not None:
        return {"reason": f"the server answered {status}", "remedy": AGAIN}
    text = str(error).strip().splitlines() or [""]
    return {"reason": f"{type(error).__name__}: {text[0]}", "remedy": AGAIN}


_KNOWN = {
    "ImportError": ("the Hugging Face client is not installed", "Install Porten with its `node` extra"),
    "GatedRepoError": ("the repository is gated", "Accept its terms there and set HF_TOKEN"),
    "RepositoryNotFoundError": ("no such repository, or a private one", "Check its name, or set HF_TOKEN"),
    "RevisionNotFoundError": ("the repository has no such revision", "Check `revision` in the catalog"),
    "EntryNotFoundError": ("the repository has no such file", "Check `file` in the catalog"),
    "OfflineModeIsEnabled": ("HF_HUB_OFFLINE is set", "Unset it, or use a `file` source"),
    "ConnectError": ("the server cannot be reached", "Check the network, or set HF_ENDPOINT to a mirror"),
    "TimeoutException": ("the server does not answer", "Check the network, or set HF_ENDPOINT to a mirror"),
    "TransportError": ("the connection broke off", AGAIN),
    "TooMuch": ("", "Use another mirror (HF_ENDPOINT), or fetch the file by hand and use a `file` source"),
}


def _answer(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Say in one line what ended this process; takes the place of the traceback."""
    del kind, trace
    sys.stdout.write(f"\n{ANSWER}{json.dumps(_explain(error))}\n")


def _give_up(error: BaseException) -> None:
    """End at once: the other transfers cannot be interrupted, and what they have so far is on the disk."""
    _answer(type(error), error, None)
    sys.stdout.flush()
    os._exit(1)


if __name__ == "__main__":
    sys.excepthook = _answer
    carry_out(json.loads(sys.argv[1]))
