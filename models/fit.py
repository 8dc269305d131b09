"""How much memory a replica will take, and whether it fits. Pure arithmetic: no files, no clock, no devices.

The estimate is what llama.cpp allocates: the weights, a key/value cache for every token of every slot, the
scratch memory of one batch, and what the engine's process takes before it has loaded anything.
"""

from dataclasses import dataclass

from models.header import GgufHeader

MIB = 1024 * 1024
F16_BYTES = 2.0


@dataclass(frozen=True, kw_only=True, slots=True)
class MemoryEstimate:
    """Bytes, by what they are for."""

    weights: int
    kv_cache: int
    compute: int
    overhead: int

    @property
    def total(self) -> int:
        """All of it, in bytes: what a placement must reserve."""
        return self.weights + self.kv_cache + self.compute + self.overhead


def estimate(
    header: GgufHeader, *, size_bytes: int, context: int, slots: int, kv_element_bytes: float = F16_BYTES
) -> MemoryEstimate:
    """Estimate the memory one replica takes.

    Args:
        header: Of the weights file.
        size_bytes: Of the weights file.
        context: Tokens in ONE slot. The engine's own context size is `context * slots`.
        slots: Requests answered at the same time.
        kv_element_bytes: Of one cached number: 2 for f16, 34/32 for q8_0.
    """
    per_token = sum(header.kv_heads) * (header.key_length + header.value_length)
    return MemoryEstimate(
        weights=size_bytes,
        kv_cache=int(per_token * kv_element_bytes * context * slots),
        compute=128 * MIB,
        overhead=64 * MIB,
    )


def fits(estimate: MemoryEstimate, free_bytes: int) -> bool:
    """Whether the replica fits into `free_bytes`."""
    return estimate.total <= free_bytes
