"""The node's settings: parsed once, at the entry, into one frozen object that is passed down.

Owns names, defaults, bounds and where a value came from. The environment is read here and nowhere else.
Must not know what a setting is used for.
"""

import difflib
import ipaddress
import json
import os
import tomllib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Self
from urllib.parse import unquote, urlsplit

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr, ValidationError, model_validator
from pydantic_settings import (
    BaseSettings,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

from runtime.config_problems import describe_problems
from runtime.endpoint_settings import EndpointSettings, checked_endpoints
from runtime.errors import ConfigInvalid
from runtime.hours import Hours
from runtime.snapshot import DeviceKind

ENV_PREFIX = "PORTEN_"
CONFIG_VARIABLE = "PORTEN_CONFIG"
_FOREIGN_PREFIXES = (
    "PORTEN_HUB_",
    "PORTEN_ENGINE_",
    "PORTEN_BENCH_",
    "PORTEN_DEMO_",
    "PORTEN_INSTALL_",
    "PORTEN_TEST_",
    "PORTEN_API_KEY",
)
"""Variables of this project's other programs and of apps, and the marker engines carry: no settings."""


def _split(value: object) -> object:
    if isinstance(value, str):
        return tuple(part.strip() for part in value.split(",") if part.strip())
    return value


def _expand(path: Path) -> Path:
    return path.expanduser().absolute()


def _loopback(host: str) -> str:
    if host == "localhost":
        return host
    try:
        is_loopback = ipaddress.ip_address(host).is_loopback
    except ValueError:
        is_loopback = False
    if not is_loopback:
        raise ValueError("must be a loopback address (127.0.0.1, ::1): the local API asks for no key")
    return host


def _http_url(url: str) -> str:
    if not url.startswith(("http://", "https://")):
        raise ValueError("must start with http:// or https://")
    # What apps are given as base_url ends so; people paste it.
    return url.rstrip("/").removesuffix("/v1").rstrip("/")


def _proxy_url(secret: SecretStr) -> SecretStr:
    """Refuse what one of the two libraries that dial through it could not read; never quote it."""
    try:
        is_sound = _is_http_proxy(secret.get_secret_value())
    except ValueError:  # whose words would quote a part
        is_sound = False
    if not is_sound:
        raise ValueError(
            "must be http://host:port or http://user:password@host:port, other characters percent-encoded"
        )
    return secret


def _is_http_proxy(url: str) -> bool:
    parts = urlsplit(url)
    named = [unquote(word, errors="strict") for word in (parts.username, parts.password) if word is not None]
    is_plain = url.isascii() and url.isprintable() and " " not in url and url.count("@") < 2
    is_bare = parts.path in ("", "/") and not parts.query and not parts.fragment
    return (
        is_plain
        and is_bare
        and parts.scheme == "http"
        and bool(parts.hostname and parts.hostname.encode("idna"))
        and parts.port != 0
        and len(named) != 1
    )


def _table(value: object) -> object:
    """A variable holds JSON where the file has a table."""
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        raise ValueError("must be JSON in a variable") from None


def _hours(text: str) -> str:
    Hours.parse(text)
    return text


def _pairs(value: object) -> object:
    """`a=b,c=d` as the environment has it; a table of the settings file is one already."""
    if not isinstance(value, str):
        return value
    parts = (part.strip().partition("=") for part in value.split(",") if part.strip())
    return {name: engine for name, _, engine in parts}


NamedEngines = Annotated[dict[str, str], NoDecode, BeforeValidator(_pairs)]
CommaSeparated = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_split)]
CommaSeparatedPaths = Annotated[
    tuple[Annotated[Path, AfterValidator(_expand)], ...], NoDecode, BeforeValidator(_split)
]
Endpoints = Annotated[
    Mapping[str, EndpointSettings], NoDecode, BeforeValidator(_table), AfterValidator(checked_endpoints)
]
AbsolutePath = Annotated[Path, AfterValidator(_expand)]


def _below_data(name: str) -> Callable[[dict[str, Any]], Path]:
    return lambda known: known["data_dir"] / name if "data_dir" in known else Path(name)


def default_data_dir(environ: Mapping[str, str]) -> Path:
    """The XDG data directory of Porten: `$XDG_DATA_HOME/porten`, else `~/.local/share/porten`."""
    base = environ.get("XDG_DATA_HOME")
    return Path(base) / "porten" if base else Path("~/.local/share/porten").expanduser()


def default_config_path(environ: Mapping[str, str]) -> Path:
    """Where the settings file is looked for: `$XDG_CONFIG_HOME/porten/node.toml`, else below `~/.config`."""
    base = environ.get("XDG_CONFIG_HOME")
    return (Path(base) if base else Path("~/.config").expanduser()) / "porten" / "node.toml"


class NodeConfig(BaseSettings):
    """Every setting of the node. Paths are absolute once parsed; unknown names are refused.

    Building one by hand reads no file and no environment: `load_config` does.
    """

    model_config = SettingsConfigDict(
        env_prefix=ENV_PREFIX, extra="forbid", frozen=True, validate_default=True, hide_input_in_errors=True
    )

    hub_url: Annotated[str, AfterValidator(_http_url)] | None = Field(
        None, description="The Hub that `porten login` enrolls with, as `https://hub.example.org`."
    )
    hub_ca_file: AbsolutePath | None = Field(
        None,
        description="PEM file of the authority that signed the Hub's certificate, where it is a private one.",
    )
    proxy_url: Annotated[SecretStr, AfterValidator(_proxy_url)] | None = Field(
        None,
        description="HTTP proxy to reach the Hub through, as `http://user:password@proxy.example.org:3128`; "
        "none is taken from the environment.",
    )
    join_token: SecretStr | None = Field(
        None, description="JoinToken with which `porten run` enrolls a machine nobody sits at."
    )
    node_name: str | None = Field(
        None,
        min_length=1,
        max_length=100,
        description="Name suggested at enrollment; the host name where unset.",
    )
    data_dir: AbsolutePath = Field(
        default_factory=lambda: default_data_dir(os.environ),
        description="Where identity, models, engines and state live; `$XDG_DATA_HOME/porten`.",
    )
    engines_dir: AbsolutePath = Field(
        default_factory=_below_data("engines"),
        description="Virtual environments of the engines; `<data_dir>/engines`.",
    )
    engines: CommaSeparated | None = Field(
        None, description="Engines to use, best first, comma-separated; all that are there where unset."
    )
    model_engines: NamedEngines | None = Field(
        None, description="Engines for some models in place of the first that reads them: `model=engine,…`."
    )
    llama_server: Path | None = Field(
        None, description="A `llama-server` of your own (llama.cpp), by its path or its name on PATH."
    )
    llama_server_device: DeviceKind = Field(
        "cpu", description="What that `llama-server` was built for: `cpu`, `cuda` or `metal`."
    )
    models_dir: AbsolutePath = Field(
        default_factory=_below_data("models"), description="Model weights; `<data_dir>/models`."
    )
    state_dir: AbsolutePath = Field(
        default_factory=_below_data("state"),
        description="Control socket, lock and engine logs; `<data_dir>/state`.",
    )
    catalog: CommaSeparatedPaths = Field(
        (), description="Further catalog files (TOML), after the one that comes with Porten; comma-separated."
    )
    models: CommaSeparated | None = Field(
        None, description="Ids of the models this node offers, comma-separated; all that fit where unset."
    )
    endpoints: Endpoints = Field(
        {},
        description="Servers of your own that answer for models, each a table `[endpoints.NAME]` "
        "(see [Endpoints of your own](#endpoints-of-your-own)); JSON in the variable.",
    )
    ram_budget_mb: int | None = Field(
        None, ge=1, description="Most memory (MiB) engines may take on the CPU; nine tenths where unset."
    )
    vram_budget_mb: int | None = Field(
        None, ge=1, description="Most memory (MiB) engines may take on each GPU; nine tenths where unset."
    )
    disk_budget_gb: float | None = Field(
        None, gt=0, description="Most disk (GB) that model weights may take; no limit where unset."
    )
    download_limit_mbit: float | None = Field(
        None,
        gt=0,
        description="Most (Mbit/s) that a model's download takes of the line; no limit where unset.",
    )
    idle_ttl_s: float = Field(
        600.0, ge=0, description="Seconds without a request after which a model is unloaded from memory."
    )
    context_length: int | None = Field(
        None, ge=1, description="Tokens of context for each slot; the model's own where unset."
    )
    slots: int | None = Field(
        None, ge=1, le=256, description="Requests an engine answers at once; the catalog's value where unset."
    )
    max_replicas: int = Field(
        1,
        ge=1,
        le=64,
        description="Most engines of one model at a time; another is started where its line waits and memory "
        "is free.",
    )
    threads: int | None = Field(
        None,
        ge=1,
        description="CPU threads an engine generates with; all physical cores but one where unset.",
    )
    local_host: Annotated[str, AfterValidator(_loopback)] = Field(
        "127.0.0.1",
        description="Loopback address of the local API. It asks for no key, so nothing else is accepted.",
    )
    local_port: int = Field(
        11700,
        ge=0,
        le=65535,
        description="Port of the local API; 0 takes a free one (`porten status` says which).",
    )
    drain_s: float = Field(
        30.0, ge=0, description="Seconds that answers in flight get to finish when the node stops."
    )
    schedule: Annotated[str, AfterValidator(_hours)] | None = Field(
        None,
        description="Local time in which the node works, as `Mon-Fri 18:00-08:00, Sat-Sun`; "
        "always where unset.",
    )
    yield_gpu: bool = Field(
        default=True,
        description="Whether to give GPU memory back while another program needs it (`true`, `false`).",
    )
    yield_cpu_percent: int | None = Field(
        None,
        ge=1,
        le=100,
        description="Share of the CPU (%) that other programs may keep busy before the node yields; "
        "any where unset.",
    )
    yield_on_battery: bool = Field(
        default=True, description="Whether to pause while the machine runs on its battery."
    )
    yield_when_hot: bool = Field(
        default=True, description="Whether to pause while a sensor is at its critical temperature."
    )
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field(
        "INFO", description="Least severe log line shown."
    )
    otlp_endpoint: str | None = Field(
        None,
        min_length=1,
        description="URL that traces of the Hub's requests are sent to, by OTLP over HTTP; none where unset.",
    )

    @model_validator(mode="after")
    def _is_of_one_mind(self) -> Self:
        for name, endpoint in self.endpoints.items():
            if endpoint.is_here and endpoint.port == self.local_port:
                raise ValueError(f"endpoints.{name} leads to this node's own local API")
            if both := sorted(endpoint.models.keys() & (self.model_engines or {}).keys()):
                raise ValueError(f"endpoints.{name} and model_engines both say who serves {both[0]}")
        return self

    @property
    def proxy(self) -> str | None:
        """The proxy's URL with its password: for dialling, never for showing."""
        return None if self.proxy_url is None else self.proxy_url.get_secret_value()

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Only what is passed in counts: `load_config` merges the sources, so that it can tell origins."""
        del settings_cls, env_settings, dotenv_settings, file_secret_settings
        return (init_settings,)


@dataclass(frozen=True, slots=True)
class LoadedConfig:
    """The settings, and for each its origin in words (`default`, a file's path, a variable, an option).

    `file` is the one that was read, `usual_file` where one is looked for unless another is named.
    """

    config: NodeConfig
    origins: Mapping[str, str]
    file: Path | None
    usual_file: Path


def load_config(
    path: Path | None = None,
    *,
    environ: Mapping[str, str] | None = None,
    options: Mapping[str, object] | None = None,
) -> LoadedConfig:
    """Read the settings: command line before environment before file before defaults.

    Args:
        path: settings file named on the command line; it must exist. Else `PORTEN_CONFIG`, else XDG's place.
        environ: the environment, `os.environ` where None.
        options: settings given on the command line, by name.

    Raises:
        ConfigInvalid: a name is unknown, a value out of bounds, or the file unreadable.
    """
    environ = os.environ if environ is None else environ
    file = _find_file(path, environ)
    layers = [
        (str(file), _read_file(file) if file else {}),
        ("environment", _read_environment(environ)),
        ("command line", dict(options or {})),
    ]
    values: dict[str, object] = {"data_dir": default_data_dir(environ)}
    origins = dict.fromkeys(NodeConfig.model_fields, "default")
    for origin, layer in layers:
        _refuse_unknown(layer, origin)
        values |= layer
        origins |= {name: _origin(origin, name) for name in layer}
    try:
        config = NodeConfig(**values)  # type: ignore[arg-type]  # validated by the model, not by the caller
    except ValidationError as error:
        raise ConfigInvalid(describe_problems(error, origins)) from None
    return LoadedConfig(config, origins, file, default_config_path(environ))


def _find_file(path: Path | None, environ: Mapping[str, str]) -> Path | None:
    named = path or (Path(environ[CONFIG_VARIABLE]) if environ.get(CONFIG_VARIABLE) else None)
    if named is None:
        standard = default_config_path(environ)
        return standard if standard.is_file() else None
    if not named.expanduser().is_file():
        raise ConfigInvalid(f"there is no settings file at {named}")
    return named.expanduser()


def _read_file(file: Path) -> dict[str, object]:
    try:
        return tomllib.loads(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigInvalid(f"{file} cannot be read: {error}") from None


def _read_environment(environ: Mapping[str, str]) -> dict[str, object]:
    _refuse_unknown_variables(environ)
    found: dict[str, object] = {}
    for name in NodeConfig.model_fields:
        value = environ.get(_variable(name))
        if value:  # an empty variable is how a service unit says "not set"
            found[name] = value
    return found


def _refuse_unknown_variables(environ: Mapping[str, str]) -> None:
    known = {_variable(name) for name in NodeConfig.model_fields} | {CONFIG_VARIABLE}
    for variable in environ:
        if (
            variable.startswith(ENV_PREFIX)
            and variable not in known
            and not variable.startswith(_FOREIGN_PREFIXES)
        ):
            raise ConfigInvalid(f"unknown variable {variable}{_suggest(variable, known)}")


def _refuse_unknown(layer: Mapping[str, object], origin: str) -> None:
    for name in layer:
        if name not in NodeConfig.model_fields:
            raise ConfigInvalid(
                f"unknown setting {name!r} in {origin}{_suggest(name, NodeConfig.model_fields)}"
            )


def _suggest(name: str, known: Iterable[str]) -> str:
    """Only what tells names apart is compared: with the prefix, every variable looks like every other."""
    short = {candidate.removeprefix(ENV_PREFIX): candidate for candidate in known}
    close = difflib.get_close_matches(name.removeprefix(ENV_PREFIX), short, n=1)
    return f"; did you mean {short[close[0]]}?" if close else ""


def _variable(name: str) -> str:
    return ENV_PREFIX + name.upper()


def _origin(layer: str, name: str) -> str:
    return _variable(name) if layer == "environment" else layer
