"""Connections that say nothing, in a process of their own: what they cost is not what is measured.

Run with host, port and how many. Prints ``open N`` once they are, and ``ended N spoke M`` once the server has
closed them: M of them heard something first.
"""

import asyncio
import resource
import sys

SPARE = 100
AT_ONCE = 100


def possible(wanted: int) -> int:
    """Raise the limit on open files as far as is needed; how many connections it allows."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < wanted + SPARE:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, wanted + SPARE), hard))
    return min(wanted, resource.getrlimit(resource.RLIMIT_NOFILE)[0] - SPARE)


async def main(host: str, port: int, wanted: int) -> None:
    """Open them, and wait for their end. Every other one sends the beginning of a request and stops."""
    gate = asyncio.Semaphore(AT_ONCE)

    async def one(number: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        async with gate:
            reader, writer = await asyncio.open_connection(host, port)
            if number % 2:
                writer.write(b"GET /healthz HTTP/1.1\r\nhost: h")
            return reader, writer

    peers = await asyncio.gather(*[one(number) for number in range(possible(wanted))])
    say(f"open {len(peers)}")
    heard = await asyncio.gather(*[reader.read() for reader, _ in peers])
    say(f"ended {len(heard)} spoke {sum(bool(each) for each in heard)}")
    for _, writer in peers:
        writer.close()


def say(words: str) -> None:
    sys.stdout.write(words + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3])))
