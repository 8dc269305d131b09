"""The command line of the node: `porten`.

Owns what is printed and the exit codes: 0 done, 1 failed (one line says why and what to do), 2 wrong usage.
What a command does is elsewhere.
"""

from runtime.cli.app import app, main

__all__ = ["app", "main"]
