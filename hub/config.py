"""The Hub's settings: parsed once, at the entry, into one frozen object that is passed down.

Owns names, defaults, bounds and where a value came from. The environment is read here and nowhere else. Must
not know what a setting is used for.
"""

from __future__ import annotations

import difflib
import os
import re
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from ipaddress import ip_network
from pathlib import Path
from typing import Annotated, Any, Literal, Self
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, Field, ValidationError, model_validator
from pydantic_settings import BaseSettings, NoDecode, PydanticBaseSettingsSource, SettingsConfigDict
from sqlalchemy.engine import make_url

from hub.errors import ConfigInvalid
from hub.field_words import field_words
from hub.policy import RegionAuthority
from hub.sso_rules import parse_rule
from hub.storage.engine import is_usable

ENV_PREFIX = "PORTEN_HUB_"
CONFIG_VARIABLE = "PORTEN_HUB_CONFIG"
NODE_VARIABLES = frozenset({"PORTEN_HUB_URL", "PORTEN_HUB_CA_FILE"})
"""The node's own settings that begin like the Hub's: on a machine that runs both they are not for us."""

_MIB = 1024 * 1024


def _split(value: object) -> object:
    if isinstance(value, str):
        return tuple(part.strip() for part in value.split(",") if part.strip())
    return value


def _expand(path: Path) -> Path:
    return path.expanduser().absolute()


def _url_of(*schemes: str) -> AfterValidator:
    def check(url: str) -> str:
        if not url.startswith(tuple(f"{scheme}://" for scheme in schemes)):
            raise ValueError(f"must start with {' or '.join(f'{scheme}://' for scheme in schemes)}")
        return url.rstrip("/")

    return AfterValidator(check)


def _database(url: str) -> str:
    if not is_usable(url):
        raise ValueError("must be of the form sqlite:////path/hub.db or postgresql://user@host/name")
    return url


def _network(text: str) -> str:
    ip_network(text)  # says itself what is wrong
    return text


def _origin(text: str) -> str:
    """An origin as browsers write it: no path, no default port, nothing in upper case."""
    if text != "*" and not _ORIGIN.fullmatch(text):
        raise ValueError("must be https://host or http://host, perhaps with a port, or `*`")
    return text


def _issuer(text: str) -> str:
    """An issuer, letter for letter as the provider writes it, with its slash at the end if it has one."""
    parts = urlsplit(text)
    near = parts.hostname in ("localhost", "127.0.0.1", "::1")
    if parts.scheme not in (("https", "http") if near else ("https",)) or not parts.netloc:
        raise ValueError("must begin with https://")
    if parts.query or parts.fragment:
        raise ValueError("must have neither ? nor #")
    return text


def _rule(text: str) -> str:
    parse_rule(text)  # says itself what is wrong
    return text


_ORIGIN = re.compile(r"https?://(?:[a-z0-9.-]+|\[[0-9a-f:.]+\])(?::[0-9]{1,5})?")
AbsolutePath = Annotated[Path, AfterValidator(_expand)]
Origin = Annotated[str, AfterValidator(_origin)]
TunnelUrl = Annotated[str, _url_of("ws", "wss")]
HttpUrl = Annotated[str, _url_of("http", "https")]
Issuer = Annotated[str, Field(max_length=500), AfterValidator(_issuer)]
SignInRule = Annotated[str, AfterValidator(_rule)]
Network = Annotated[str, AfterValidator(_network)]
Port = Annotated[int, Field(ge=0, le=65535)]


def default_data_dir(environ: Mapping[str, str]) -> Path:
    """The XDG data directory of the Hub: ``$XDG_DATA_HOME/porten-hub``, else below ``~/.local/share``."""
    base = environ.get("XDG_DATA_HOME")
    return (Path(base) if base else Path("~/.local/share").expanduser()) / "porten-hub"


class HubConfig(BaseSettings):
    """Every setting of the Hub. Paths are absolute once parsed; unknown names are refused.

    Building one by hand reads no file and no environment: :func:`load_config` does.
    """

    model_config = SettingsConfigDict(
        env_prefix=ENV_PREFIX, extra="forbid", frozen=True, validate_default=True, hide_input_in_errors=True
    )

    data_dir: AbsolutePath = Field(
        default_factory=lambda: default_data_dir(os.environ),
        description="Where the key, the database and the usage spool live; `$XDG_DATA_HOME/porten-hub`.",
    )
    database_url: Annotated[str, AfterValidator(_database)] | None = Field(
        None,
        description="`postgresql://user@host/name` or `sqlite:////path/hub.db`; "
        "SQLite in `data_dir` where unset.",
    )
    database_password_file: AbsolutePath | None = Field(
        None, description="File with the database's password, which the URL then leaves out."
    )
    database_outage_grace_s: float = Field(
        300.0,
        ge=0,
        description="Seconds that known keys and nodes are believed while the database does not answer.",
    )
    name: str = Field(
        "Porten",
        min_length=1,
        max_length=100,
        description="What the Hub is called where people sign in, and towards nodes.",
    )
    host: str = Field("127.0.0.1", min_length=1, description="Address the API and the portal listen on.")
    port: Port = Field(8420, description="Port of the API and the portal; 0 takes a free one.")
    tunnel_host: str = Field("127.0.0.1", min_length=1, description="Address nodes dial in to.")
    tunnel_port: Port = Field(8421, description="Port nodes dial in to; 0 takes a free one.")
    public_url: HttpUrl | None = Field(
        None,
        description="URL under which the world reaches API and portal; `host` and `port` where unset.",
    )
    tunnel_urls: Annotated[tuple[TunnelUrl, ...], NoDecode, BeforeValidator(_split)] = Field(
        (), description="URLs that nodes are told to dial; `tunnel_host` and `tunnel_port` where empty."
    )
    trusted_proxies: Annotated[tuple[Network, ...], NoDecode, BeforeValidator(_split)] = Field(
        ("127.0.0.1", "::1"),
        description="Addresses and networks of proxies whose `X-Forwarded-For` and `-Proto` are believed.",
    )
    region_authority: RegionAuthority = Field(
        RegionAuthority.OPERATOR,
        description="Whose word makes a node's region count: an `operator` must confirm it, "
        "or the `owner`'s choice stands.",
    )
    catalog: Annotated[tuple[AbsolutePath, ...], NoDecode, BeforeValidator(_split)] = Field(
        (), description="Further catalog files (TOML) beside the packaged one."
    )
    body_limit_bytes: int = Field(32 * _MIB, ge=1024, description="Largest request body, in bytes.")
    max_concurrent_requests: int = Field(
        1024, ge=1, description="Requests the Hub carries at once; more are refused as `overloaded`."
    )
    max_concurrent_per_key: int = Field(
        256, ge=1, description="Requests of one key at once; more get `rate_limit_exceeded`."
    )
    warmup_budget_s: float = Field(
        300.0, ge=0, description="Seconds a request waits for a cold model, unless it says otherwise itself."
    )
    request_deadline_s: float = Field(
        600.0, gt=0, description="Seconds after which a request ends, whatever it is doing."
    )
    queue_timeout_s: float = Field(
        10.0, ge=0, description="Seconds a request waits for room when every permitted node is full."
    )
    max_waiting_per_model: int = Field(
        256,
        ge=1,
        description="Requests of one organisation that wait for one model at once; more get `overloaded`.",
    )
    spread_after_s: float = Field(
        10.0,
        ge=0,
        description="Seconds for which most requests for a model have to wait before the Hub asks a further "
        "permitted node to load it; 0: it never asks.",
    )
    drain_s: float = Field(
        600.0, ge=0, description="Seconds that answers in flight get to finish when the Hub stops."
    )
    usage_retention_days: int | None = Field(
        None, ge=1, description="Days that usage records are kept; for ever where unset."
    )
    audit_retention_days: int | None = Field(
        None, ge=1, description="Days that the audit log's events are kept; for ever where unset."
    )
    require_second_step: bool = Field(
        default=False, description="Whether everybody who may manage must have a second step at sign-in."
    )
    oidc_issuer: Issuer | None = Field(
        None, description="Identity provider for single sign-on, as it names itself; none where unset."
    )
    oidc_client_id: str | None = Field(
        None, min_length=1, description="What the identity provider knows this Hub by."
    )
    oidc_client_secret_file: AbsolutePath | None = Field(
        None, description="File with the secret it gave this Hub, mode 0600."
    )
    oidc_name: str = Field(
        "single sign-on", min_length=1, max_length=60, description="What the identity provider is called."
    )
    oidc_scopes: Annotated[tuple[str, ...], NoDecode, BeforeValidator(_split)] = Field(
        ("openid", "email"), description="What is asked of the identity provider; `openid` must be in it."
    )
    oidc_claim: str = Field("groups", min_length=1, description="The claim that `oidc_rules` look at.")
    oidc_rules: Annotated[tuple[SignInRule, ...], NoDecode, BeforeValidator(_split)] = Field(
        (),
        description="Who gets an account by single sign-on, as `VALUE=ORGANISATION:ROLE`; the first that "
        "fits counts, `*` fits anybody.",
    )
    oidc_email_domains: Annotated[tuple[str, ...], NoDecode, BeforeValidator(_split)] = Field(
        (),
        description="Domains of e-mail addresses that may get an account by single sign-on; any where empty.",
    )
    cors_origins: Annotated[tuple[Origin, ...], NoDecode, BeforeValidator(_split)] = Field(
        (),
        description="Web pages that may use `/v1`, by origin, as `https://app.example.org`; `*` is any.",
    )
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field(
        "INFO", description="Least severe log line shown."
    )
    log_format: Literal["text", "json"] = Field(
        "text", description="Log lines for people, or one JSON object a line for programs."
    )
    otlp_endpoint: HttpUrl | None = Field(
        None,
        description="URL that traces are sent to, by OTLP over HTTP "
        "(`http://collector:4318/v1/traces`); none where unset.",
    )
    trace_ratio: float = Field(
        1.0, ge=0, le=1, description="Share of requests that are traced, where the caller does not decide it."
    )

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

    @model_validator(mode="after")
    def _whole_single_sign_on(self) -> Self:
        """Half of it set is a mistake; all of it or none."""
        needed = (self.oidc_issuer, self.oidc_client_id, self.oidc_client_secret_file)
        if any(needed) and not all(needed):
            raise ValueError(
                "single sign-on needs all of oidc_issuer, oidc_client_id and oidc_client_secret_file"
            )
        if "openid" not in self.oidc_scopes:
            raise ValueError("oidc_scopes must have openid in it")
        return self

    @property
    def database(self) -> str:
        """The database's URL, with its default filled in, and its password where a file holds it.

        Raises:
            ConfigInvalid: that file cannot be read, or the URL is none.
        """
        url = self.database_url or f"sqlite+aiosqlite:///{self.database_file}"
        return (
            url if self.database_password_file is None else _with_password(url, self.database_password_file)
        )

    @property
    def database_file(self) -> Path:
        """Where the database is unless a URL names another."""
        return self.data_dir / "hub.db"

    @property
    def key_file(self) -> Path:
        """The Hub's own Ed25519 key."""
        return self.data_dir / "hub.key"

    @property
    def spool_dir(self) -> Path:
        """Where usage records wait to be stored."""
        return self.data_dir / "usage"

    @property
    def journal_dir(self) -> Path:
        """Where the audit log's notes wait to be stored."""
        return self.data_dir / "audit"


@dataclass(frozen=True, slots=True)
class LoadedConfig:
    """The settings, and for each its origin (``default``, a file's path, a variable, ``command line``)."""

    config: HubConfig
    origins: Mapping[str, str]
    file: Path | None


def load_config(
    path: Path | None = None,
    *,
    environ: Mapping[str, str] | None = None,
    options: Mapping[str, object] | None = None,
) -> LoadedConfig:
    """Read the settings: command line before environment before file before defaults.

    Args:
        path: settings file named on the command line; it must exist. Else ``PORTEN_HUB_CONFIG``, else none.
        environ: the environment, ``os.environ`` where None.
        options: settings given on the command line, by name.

    Raises:
        ConfigInvalid: a name is unknown, a value out of bounds, or the file unreadable.
    """
    environ = os.environ if environ is None else environ
    file = path or (Path(environ[CONFIG_VARIABLE]) if environ.get(CONFIG_VARIABLE) else None)
    layers = [
        (str(file), _read_file(file) if file else {}),
        ("environment", _read_environment(environ)),
        ("command line", dict(options or {})),
    ]
    values: dict[str, Any] = {"data_dir": default_data_dir(environ)}
    origins = dict.fromkeys(HubConfig.model_fields, "default")
    for origin, layer in layers:
        values |= layer
        origins |= {name: variable(name) if origin == "environment" else origin for name in layer}
    try:
        return LoadedConfig(HubConfig(**values), origins, file)
    except ValidationError as error:
        raise ConfigInvalid(list(_problems(error, origins))) from None


def _with_password(url: str, file: Path) -> str:
    try:
        password = file.read_text(encoding="utf-8").rstrip("\r\n")
        return make_url(url).set(password=password).render_as_string(hide_password=False)
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigInvalid([f"database_password_file: {file} cannot be read: {error}"]) from None


def read_secret(file: Path, setting: str) -> str:
    """What a file of mode 0600 holds, without the line's end.

    Raises:
        ConfigInvalid: it cannot be read, can be read by others, or is empty.
    """
    try:
        mode, text = file.stat().st_mode, file.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigInvalid([f"{setting}: {file} cannot be read: {type(error).__name__}"]) from None
    if mode & 0o077:
        raise ConfigInvalid([f"{setting}: {file} can be read by others: run `chmod 600 {file}`"])
    if not text:
        raise ConfigInvalid([f"{setting}: {file} is empty"])
    return text


def variable(name: str) -> str:
    """The environment variable of a setting."""
    return ENV_PREFIX + name.upper()


def _read_file(file: Path) -> dict[str, Any]:
    try:
        found = tomllib.loads(file.expanduser().read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigInvalid([f"{file} cannot be read: {error}"]) from None
    _refuse_unknown(found, HubConfig.model_fields, f"setting in {file}")
    return found


def _read_environment(environ: Mapping[str, str]) -> dict[str, Any]:
    names = {variable(name): name for name in HubConfig.model_fields}
    ours = {key: value for key, value in environ.items() if key.startswith(ENV_PREFIX)}
    ours = {key: value for key, value in ours.items() if key not in (CONFIG_VARIABLE, *NODE_VARIABLES)}
    _refuse_unknown(ours, names, "variable")
    # An empty variable is how a service unit says "not set".
    return {names[key]: value for key, value in ours.items() if value}


def _refuse_unknown(given: Iterable[str], known: Iterable[str], kind: str) -> None:
    known = list(known)
    problems = []
    # Only what tells names apart is compared: with the prefix, every variable looks like every other.
    short = {name.removeprefix(ENV_PREFIX): name for name in known}
    for name in sorted(set(given) - set(known)):
        near = difflib.get_close_matches(name.removeprefix(ENV_PREFIX), short, n=1)
        problems.append(f"unknown {kind}: {name}" + (f"; did you mean {short[near[0]]}?" if near else ""))
    if problems:
        raise ConfigInvalid(problems)


def _problems(error: ValidationError, origins: Mapping[str, str]) -> Iterable[str]:
    """One line a problem, naming where the value came from and never repeating it: it may hold a password."""
    for problem in error.errors(include_input=False, include_url=False):
        name = str(problem["loc"][0]) if problem["loc"] else "settings"
        message = field_words(problem) or problem["msg"]
        yield f"{name} (from {origins.get(name, 'the settings')}): {message}"
