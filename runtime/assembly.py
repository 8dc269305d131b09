"""The node's parts made from its settings: catalog, store, backends, supervisor.

Owns which setting goes where; the daemon and the command line build the same parts with it. Must not know
sessions.
"""

from collections.abc import Callable, Collection, Sequence

from models.catalog import Catalog, load_catalog
from models.store import ModelStore
from runtime import devices
from runtime.backends.base import Backend, EngineOptions
from runtime.backends.llama_cpp import LlamaCppBackend
from runtime.backends.llama_cpp_python import LlamaCppPythonBackend
from runtime.backends.llama_server import LlamaServerBackend
from runtime.backends.vllm import VllmBackend
from runtime.budget import Budgets
from runtime.config import NodeConfig
from runtime.devices import Device
from runtime.engine_recipes import providers
from runtime.engines import EngineEnvironment
from runtime.errors import ConfigInvalid
from runtime.external import OwnersEndpoint
from runtime.supervisor import Supervisor, SupervisorSettings
from tunnel.tracing import Tracing, open_tracing
from tunnel.version import __version__

ENGINES = ("llama_server", "llama_cpp", "llama_cpp_python", "vllm")
"""Engines by the name that settings and commands use, best first: a `llama-server` is there for a reason."""
INSTALLABLE = ("llama_cpp", "llama_cpp_python", "vllm")
"""Those that `porten engines install` can bring."""
_MIB = 1024 * 1024
_GB = 1_000_000_000
_BYTES_PER_MBIT = 1_000_000 / 8


def open_catalog(config: NodeConfig) -> Catalog:
    """The packaged catalog with the owner's files on top.

    Raises:
        models.errors.CatalogInvalid: a file is missing or wrong.
        ConfigInvalid: `models` or an endpoint names one that no catalog has.
    """
    catalog = load_catalog(*config.catalog)
    for name, endpoint in config.endpoints.items():
        for model_id in endpoint.models:
            if model_id not in catalog:
                raise ConfigInvalid(f"endpoints.{name}: there is no model {model_id!r} in the catalog")
    for model_id in config.models or ():
        if model_id not in catalog:
            raise ConfigInvalid(f"models: there is no model {model_id!r} in the catalog")
    return catalog


def open_store(config: NodeConfig) -> ModelStore:
    """The store of weights, within the disk budget."""
    budget = None if config.disk_budget_gb is None else int(config.disk_budget_gb * _GB)
    return ModelStore(config.models_dir, budget_bytes=budget)


def download_rate(config: NodeConfig) -> float | None:
    """The bytes a second that one model's download may take; None for all the line has."""
    return None if config.download_limit_mbit is None else config.download_limit_mbit * _BYTES_PER_MBIT


def make_backends(config: NodeConfig) -> tuple[Backend, ...]:
    """Every backend this node may use, installed or not, best first.

    Raises:
        ConfigInvalid: `engines` or `model_engines` names one that there is not.
    """
    found: dict[str, Backend] = {
        "llama_cpp": LlamaCppBackend(_environment(config, "llama_cpp")),
        "llama_cpp_python": LlamaCppPythonBackend(_environment(config, "llama_cpp_python")),
        "vllm": VllmBackend(_environment(config, "vllm")),
    }
    if config.llama_server is not None:
        found["llama_server"] = LlamaServerBackend(config.llama_server, config.llama_server_device)
    _check_names(config, found)
    return tuple(found[name] for name in config.engines or ENGINES if name in found)


def _check_names(config: NodeConfig, found: Collection[str]) -> None:
    for name in config.engines or ():
        if name not in found:
            absent = "set `llama_server`" if name == "llama_server" else f"there is: {', '.join(ENGINES)}"
            raise ConfigInvalid(f"engines: there is no engine {name!r}; {absent}")
    for model, name in (config.model_engines or {}).items():
        if name not in (config.engines or found):
            raise ConfigInvalid(f"model_engines: {model!r} asks for {name!r}, which this node does not use")


def _environment(config: NodeConfig, engine: str) -> EngineEnvironment:
    return EngineEnvironment(config.engines_dir, providers()[engine])


def make_endpoints(config: NodeConfig) -> tuple[OwnersEndpoint, ...]:
    """Every endpoint that the owner named."""
    return tuple(OwnersEndpoint(name, settings) for name, settings in config.endpoints.items())


def engine_options(config: NodeConfig) -> EngineOptions:
    """What the owner set for every engine."""
    return EngineOptions(context_length=config.context_length, slots=config.slots, threads=config.threads)


def make_budgets(config: NodeConfig, found: Sequence[Device]) -> Budgets:
    """The owner's budgets over these devices."""
    return Budgets(found, ram=_mebibytes(config.ram_budget_mb), vram=_mebibytes(config.vram_budget_mb))


def make_supervisor(config: NodeConfig, catalog: Catalog, on_change: Callable[[], None]) -> Supervisor:
    """The supervisor over this machine's devices."""
    return Supervisor(
        catalog=catalog,
        store=open_store(config),
        backends=make_backends(config),
        endpoints=make_endpoints(config),
        devices=devices.detect(),
        settings=SupervisorSettings(
            state_dir=config.state_dir,
            offered=config.models,
            model_engines=config.model_engines or {},
            idle_ttl_s=config.idle_ttl_s,
            max_replicas=config.max_replicas,
            ram_budget_bytes=_mebibytes(config.ram_budget_mb),
            vram_budget_bytes=_mebibytes(config.vram_budget_mb),
            download_bytes_per_s=download_rate(config),
            engine=engine_options(config),
        ),
        on_change=on_change,
    )


def make_tracing(config: NodeConfig) -> Tracing:
    """Where the steps of the Hub's requests are traced to.

    Raises:
        ConfigInvalid: it is asked for, and OpenTelemetry is not installed.
    """
    try:
        return open_tracing(config.otlp_endpoint, service="porten-node", version=__version__)
    except ImportError:
        raise ConfigInvalid(
            "otlp_endpoint: OpenTelemetry is not installed: pip install 'porten[telemetry]', or unset it"
        ) from None


def _mebibytes(count: int | None) -> int | None:
    return None if count is None else count * _MIB
