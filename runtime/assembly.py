"""The node's parts made from its settings: catalog, store, backends, supervisor.

Owns which setting goes where; the daemon and the command line build the same parts with it. Must not know the
tunnel.
"""

from collections.abc import Callable

from models.catalog import Catalog, load_catalog
from models.store import ModelStore
from runtime import devices
from runtime.backends.base import Backend, EngineOptions
from runtime.backends.llama_cpp import LlamaCppBackend
from runtime.config import NodeConfig
from runtime.engines import EngineEnvironment
from runtime.errors import ConfigInvalid
from runtime.supervisor import Supervisor, SupervisorSettings

ENGINES = {"llama_cpp": "xllamacpp"}
"""Engines by the name that settings and commands use, and the distribution each is installed from."""
_MIB = 1024 * 1024
_GB = 1_000_000_000


def open_catalog(config: NodeConfig) -> Catalog:
    """The packaged catalog with the owner's files on top.

    Raises:
        models.errors.CatalogInvalid: a file is missing or wrong.
        ConfigInvalid: `models` names one that no catalog has.
    """
    catalog = load_catalog(*config.catalog)
    for model_id in config.models or ():
        if model_id not in catalog:
            raise ConfigInvalid(f"models: there is no model {model_id!r} in the catalog")
    return catalog


def open_store(config: NodeConfig) -> ModelStore:
    """The store of weights, within the disk budget."""
    budget = None if config.disk_budget_gb is None else int(config.disk_budget_gb * _GB)
    return ModelStore(config.models_dir, budget_bytes=budget)


def make_backends(config: NodeConfig) -> tuple[Backend, ...]:
    """Every backend this node knows, installed or not."""
    return (LlamaCppBackend(EngineEnvironment(config.engines_dir, ENGINES["llama_cpp"])),)


def make_supervisor(config: NodeConfig, catalog: Catalog, on_change: Callable[[], None]) -> Supervisor:
    """The supervisor over this machine's devices."""
    return Supervisor(
        catalog=catalog,
        store=open_store(config),
        backends=make_backends(config),
        devices=devices.detect(),
        settings=SupervisorSettings(
            state_dir=config.state_dir,
            offered=config.models,
            idle_ttl_s=config.idle_ttl_s,
            max_replicas=config.max_replicas,
            ram_budget_bytes=_mebibytes(config.ram_budget_mb),
            vram_budget_bytes=_mebibytes(config.vram_budget_mb),
            engine=EngineOptions(
                context_length=config.context_length, slots=config.slots, threads=config.threads
            ),
        ),
        on_change=on_change,
    )


def _mebibytes(count: int | None) -> int | None:
    return None if count is None else count * _MIB
