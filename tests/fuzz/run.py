"""`make fuzz`: throws bytes at one target after the other, led by the code's coverage (atheris, libFuzzer).

What a run learns stays under `.cache/fuzz`; an input that breaks something is left in `reports/fuzz`, to be
moved into the corpus together with the mend.
"""

import argparse
import subprocess
import sys
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["tunnel", "targets"]):
    import targets

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
LONGEST_INPUT = 16_384
SLOWEST_INPUT_S = 5
MEMORY_MIB = 2_048


def main() -> None:
    """Fuzz the one target named, or each of them in a process of its own."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=int, default=60, help="for each target")
    parser.add_argument("--only", choices=targets.TARGETS, help="this target alone")
    arguments = parser.parse_args()
    if arguments.only:
        fuzz(arguments.only, arguments.seconds)
        return
    command = [sys.executable, __file__, "--seconds", str(arguments.seconds), "--only"]
    broken = [name for name in targets.TARGETS if subprocess.run([*command, name], check=False).returncode]
    if broken:
        sys.exit(f"broken: {', '.join(broken)}; see reports/fuzz")


def fuzz(name: str, seconds: int) -> None:
    learned, found = ROOT / ".cache" / "fuzz" / name, ROOT / "reports" / "fuzz"
    for directory in (learned, found):
        directory.mkdir(parents=True, exist_ok=True)
    sys.stdout.write(f"-- {name}: {seconds} s\n")
    sys.stdout.flush()
    options = [
        f"-max_total_time={seconds}",
        f"-max_len={LONGEST_INPUT}",
        f"-timeout={SLOWEST_INPUT_S}",
        f"-rss_limit_mb={MEMORY_MIB}",
        f"-artifact_prefix={found}/{name}-",
        "-print_final_stats=1",
        "-verbosity=0",
    ]
    atheris.Setup([__file__, *options, str(learned), str(HERE / "corpus" / name)], targets.TARGETS[name])
    atheris.Fuzz()


if __name__ == "__main__":
    main()
