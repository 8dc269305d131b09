"""Which endpoint is measured and how it is asked: parsed once, then only read.

Must not know sockets, loads or time.
"""

from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Final, Self
from urllib.parse import urlsplit

from benchmarks.errors import SettingInvalid
from tunnel.version import __version__

_DEFAULT_PORTS: Final = {"http": 80, "https": 443}


class Api(StrEnum):
    """Which of the OpenAI endpoints is driven; the value is its path below the base URL."""

    CHAT = "chat/completions"
    COMPLETIONS = "completions"


@dataclass(frozen=True, slots=True)
class Target:
    """An endpoint to be measured and how to ask it.

    Attributes:
        base_url: as the OpenAI clients take it, ``https://hub.example/v1``; without a path, ``/v1`` is meant.
        api_key: sent as a bearer token; never shown, logged or written.
        ignore_eos: ask engines that know it (vLLM, llama.cpp, SGLang) to go on to ``max_tokens``.
        timeout_s: for one request, from its sending to its last byte.
        ca_file: certificates to trust instead of the system's.
    """

    base_url: str
    model: str
    api: Api = Api.CHAT
    api_key: str | None = field(default=None, repr=False)
    stream: bool = True
    ignore_eos: bool = True
    timeout_s: float = 600.0
    ca_file: Path | None = None


@dataclass(frozen=True, slots=True)
class Origin:
    """Where the target's URL points to."""

    host: str
    port: int
    secure: bool
    authority: str
    path: str

    @classmethod
    def of(cls, target: Target) -> Self:
        """Take the base URL apart.

        Raises:
            SettingInvalid: it is not one, or carries what does not belong into a report.
        """
        # No message repeats the URL: what cannot be taken apart may hold a password anywhere.
        if not target.base_url.isascii() or not target.base_url.isprintable() or " " in target.base_url:
            raise SettingInvalid(
                "the base URL may hold plain letters, digits and signs only: in a "
                "host's name others are written xn--..., in a path %20 and the like"
            )
        try:
            parts = urlsplit(target.base_url)
            host, port = parts.hostname, parts.port
        except ValueError as error:
            raise SettingInvalid("the base URL is not a URL: write it like http://host:port/v1") from error
        if parts.scheme not in _DEFAULT_PORTS or not host:
            raise SettingInvalid("the base URL must begin with http:// or https:// and name a host")
        if "@" in parts.netloc or parts.query or parts.fragment:
            raise SettingInvalid("the base URL may hold no user, password, query or fragment")
        secure = parts.scheme == "https"
        path = f"{parts.path.rstrip('/') or '/v1'}/{target.api.value}"
        return cls(host, port or _DEFAULT_PORTS[parts.scheme], secure, parts.netloc, path)

    def request_head(self, target: Target) -> bytes:
        """The request's head up to the value of Content-Length, which is its last header."""
        accept = "text/event-stream" if target.stream else "application/json"
        lines = [
            f"POST {self.path} HTTP/1.1",
            f"Host: {self.authority}",
            f"User-Agent: porten-bench/{__version__}",
            "Content-Type: application/json",
            f"Accept: {accept}",
        ]
        if target.api_key:
            lines.append(f"Authorization: Bearer {_header_value(target.api_key)}")
        return ("\r\n".join([*lines, "Content-Length: "])).encode("ascii")


def _header_value(secret: str) -> str:
    # Not shown in the message: it may be a key with one stray character.
    if not (secret.isascii() and secret.isprintable()) or " " in secret:
        raise SettingInvalid("the API key holds characters that no key has (spaces or line ends, perhaps)")
    return secret
