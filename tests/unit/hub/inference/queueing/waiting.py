"""Requests that wait on scripted nodes: who asks, where, and in which order they got their node."""

import asyncio

ROOM = 8
"""Requests that a scripted node takes: 2 slots, 4 for each."""


async def caller(world, organisation="org_a", **changes):
    secret, _key = world.add_key(organisation_id=organisation, **changes)
    return await world.admission.authenticate(f"Bearer {secret}")


async def fleet(world, **nodes):
    """Nodes by name, with changes of their facts."""
    for name, changes in nodes.items():
        world.add_node(name, **changes)
    await world.registry.facts.load()
    return {name: world.connect(name) for name in nodes}


async def settle():
    for _ in range(20):
        await asyncio.sleep(0)


class Requests:
    """Requests under way, and the order in which they got their node."""

    def __init__(self, world):
        self.world = world
        self.order = []
        self.tasks = {}
        self.dispatches = {}

    async def begin(self, name, admitted, **changes):
        dispatch = self.world.begin(admitted, **changes)
        self.dispatches[name] = dispatch
        self.tasks[name] = asyncio.create_task(self._connect(name, dispatch))
        await settle()

    async def _connect(self, name, dispatch):
        try:
            await dispatch.connect()
        except BaseException:
            dispatch.close()
            raise
        self.order.append(name)

    async def fill(self, admitted, count=ROOM, prefix="first"):
        for number in range(count):
            await self.begin(f"{prefix}{number}", admitted)
        assert len(self.order) >= count

    async def end(self, name):
        self.dispatches[name].finish()
        self.dispatches[name].close()
        await settle()

    async def cancel_all(self):
        for task in self.tasks.values():
            task.cancel()
        await asyncio.gather(*self.tasks.values(), return_exceptions=True)
        for dispatch in self.dispatches.values():
            dispatch.close()
