"""The operator's regions as pages need them, read once for a page.

Owns their order, names and tree; knows nothing of who asks.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from fastapi import Request

from hub.policy import RegionTree
from hub.portal.pages import hub_of
from hub.portal.presenting import RegionRow, region_rows


@dataclass(frozen=True, slots=True)
class RegionsView:
    """The tree for pickers, for names and for the policy."""

    rows: list[RegionRow]
    names: Mapping[str, str]
    tree: RegionTree

    def name(self, code: str | None) -> str:
        """Name a region; one the tree does not have is shown by its code."""
        return "No region" if code is None else self.names.get(code, code)


async def read_regions(request: Request) -> RegionsView:
    """Read the regions."""
    regions = await hub_of(request).storage.regions.list()
    rows = region_rows(regions)
    tree = RegionTree({region.code: region.parent for region in regions})
    return RegionsView(rows, {row.code: row.name for row in rows}, tree)
