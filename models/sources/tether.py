"""Runs a module (`-m name`) or a script that dies with its parent. Run by path; imports nothing of Porten.

Standard input is a pipe that nobody writes to. It ends when the parent ends, however that happened, and then
this whole session ends too: no download goes on unseen, holding a lock that somebody else waits for.
"""

import os
import runpy
import signal
import sys
import threading


def _end_with_parent() -> None:
    while os.read(0, 4096):
        pass
    os.killpg(0, signal.SIGKILL)


def main(arguments: list[str]) -> None:
    """Become what the arguments say."""
    threading.Thread(target=_end_with_parent, daemon=True, name="tether").start()
    if arguments[0] == "-m":
        sys.argv = arguments[1:]
        runpy.run_module(arguments[1], run_name="__main__", alter_sys=True)
    else:
        sys.argv = arguments
        runpy.run_path(arguments[0], run_name="__main__")


if __name__ == "__main__":
    main(sys.argv[1:])
