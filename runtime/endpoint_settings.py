"""One endpoint of the owner's in the settings: where it is, what it serves, and what its owner vouches for.

Owns names, bounds, and the rule that an endpoint on another machine needs its owner's word. Must not know
what is asked of it.
"""

import ipaddress
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal, Self
from urllib.parse import SplitResult, urlsplit

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints, model_validator

EndpointKind = Literal["openai", "ollama"]

_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,39}")
_PORTS = {"http": 80, "https": 443}


def _endpoint_url(url: str) -> str:
    """Refuse what is no plain address; never quote it: it may hold a password."""
    try:
        is_sound = _is_plain(url, urlsplit(url))
    except ValueError:  # whose words would quote a part
        is_sound = False
    if not is_sound:
        raise ValueError(
            "must be http://host:port or https://host:port, perhaps with a path; a key belongs in "
            "api_key_file"
        )
    return url.rstrip("/").removesuffix("/v1")


def _is_plain(url: str, parts: SplitResult) -> bool:
    return (
        parts.scheme in _PORTS
        and bool(parts.hostname and parts.hostname.encode("idna"))
        and parts.port != 0
        and url.isascii()
        and url.isprintable()
        and not set(url) & set(' @?#"\\')
    )


def _absolute(path: Path) -> Path:
    return path.expanduser().absolute()


AbsolutePath = Annotated[Path, AfterValidator(_absolute)]
NameThere = Annotated[str, StringConstraints(min_length=1, max_length=200)]


class EndpointSettings(BaseModel):
    """An OpenAI-compatible server or an Ollama that the owner runs.

    Attributes:
        url: its base address; a `/v1` at the end says nothing and is taken off.
        models: by catalog id, what the endpoint calls each model.
        kind: how it lists its models: `/v1/models` or Ollama's `/api/tags`.
        slots: requests it gets at once for each of its models.
        protocols: what it speaks besides OpenAI's chats: `responses` (OpenAI's), `messages` (Anthropic's).
        api_key_file: holds the key it wants, on one line; readable by its owner alone.
        ca_file: PEM file of the authority that signed its certificate, where it is a private one.
        own_machine_in_region: the owner's word that a machine other than this one is theirs too and stands in
            this node's region.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    url: Annotated[str, AfterValidator(_endpoint_url)]
    models: Annotated[Mapping[str, NameThere], Field(min_length=1)]
    kind: EndpointKind = "openai"
    slots: Annotated[int, Field(ge=1, le=256)] = 1
    protocols: tuple[Literal["responses", "messages"], ...] = ()
    api_key_file: AbsolutePath | None = None
    ca_file: AbsolutePath | None = None
    own_machine_in_region: bool = False

    @model_validator(mode="after")
    def _is_vouched_for(self) -> Self:
        if not self.is_here and not self.own_machine_in_region:
            raise ValueError(
                "its url leads to another machine; set own_machine_in_region = true if that one is yours too "
                "and stands in this node's region"
            )
        return self

    @property
    def host(self) -> str:
        """The host's name or address."""
        return urlsplit(self.url).hostname or ""

    @property
    def port(self) -> int:
        """The port, the scheme's own where none is named."""
        parts = urlsplit(self.url)
        return parts.port or _PORTS[parts.scheme]

    @property
    def base_path(self) -> str:
        """What stands before `/v1` in its paths."""
        return urlsplit(self.url).path

    @property
    def is_encrypted(self) -> bool:
        """Whether it is spoken to over TLS."""
        return urlsplit(self.url).scheme == "https"

    @property
    def is_here(self) -> bool:
        """Whether its address is this machine's loopback."""
        if self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False


def checked_endpoints(endpoints: Mapping[str, EndpointSettings]) -> Mapping[str, EndpointSettings]:
    """The endpoints by name, each model served by one of them.

    Raises:
        ValueError: a name is none, or a model stands at two endpoints.
    """
    served: dict[str, str] = {}
    for name, endpoint in endpoints.items():
        if not _NAME.fullmatch(name):
            raise ValueError("the name of an endpoint is [a-z0-9][a-z0-9_-]* of at most 40 characters")
        for model_id in endpoint.models:
            if served.setdefault(model_id, name) != name:
                raise ValueError(f"{served[model_id]} and {name} both serve {model_id}")
    return endpoints
