"""The portal's buttons on a real node: its engine comes and goes."""

import asyncio
import re

import psutil
import pytest

from benchmarks.stacks.stack import MODEL, Stack

pytestmark = pytest.mark.asyncio(loop_scope="module")


def engines(stack: Stack) -> list[psutil.Process]:
    """The engines that the node runs."""
    children = psutil.Process(stack.node.process.pid).children(recursive=True)
    return [child for child in children if "xllamacpp" in " ".join(child.cmdline())]


async def test_a_model_is_loaded_and_unloaded_by_hand(stack: Stack) -> None:
    async with stack.hub.portal() as owner:
        [node] = set(re.findall(r"/nodes/(node_\w+)", await owner.open("/nodes")))

        async def until(words: str) -> None:
            async with asyncio.timeout(60):
                while words not in await owner.open(f"/nodes/{node}"):
                    await asyncio.sleep(0.1)

        await until(f'"Load {MODEL}"')
        await owner.submit(f"/nodes/{node}", holding="model", fields={"model": MODEL, "action": "load"})
        await until(f'"Unload {MODEL}"')
        assert engines(stack)
        await owner.submit(f"/nodes/{node}", holding="model", fields={"model": MODEL, "action": "unload"})
        await until(f'"Load {MODEL}"')
        assert not engines(stack)
