"""Reading out of vLLM's log why it did not start. Pure: text in, one line out."""

import re

_ERROR = re.compile(
    r"(?:^|\s)(?:[a-z_]+\.)*(?P<kind>[A-Z]\w*(?:Error|Exception)): (?P<text>\S.*)$", re.MULTILINE
)
# Pydantic's errors say what is wrong a line later.
_PYDANTIC = re.compile(r"Value error, (?P<text>.+?)(?: \[type=|$)", re.MULTILINE)
_CONSEQUENCE = "Engine core initialization failed"
_PATH = re.compile(r"'?/[^\s']+'?")
_LONGEST = 300


def cause(log: str) -> str:
    """The first error, without paths of this machine; empty where the log does not tell."""
    if found := _PYDANTIC.search(log):
        return _plain(found["text"])
    for error in _ERROR.finditer(log):
        if _CONSEQUENCE not in error["text"]:
            return _plain(error["text"])
    return ""


def _plain(text: str) -> str:
    return _PATH.sub("the folder", text.strip())[:_LONGEST]
