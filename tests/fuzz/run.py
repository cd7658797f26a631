"""Coverage-guided fuzzing of the C code that reads what somebody else wrote: one target per file beside this.

`make fuzz` runs every target for a minute; `run.py NAME --seconds S` runs one. What it finds is left in
build/fuzz/NAME; inputs that reach something new join corpus/NAME.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
INCLUDES = ("cafe_lib/include", "cafe_lib/runtime", "cafe_lib/guest", "hypervisor_agent/vmm", "tests/proofs")
FLAGS = ("-std=gnu17", "-O1", "-g", "-Wall", "-Wextra", "-Werror", "-pthread")
SANITIZE = "address,undefined"
# What a target is linked with besides its own file, which includes the rest.
SOURCES = {"config": ("hypervisor_agent/vmm/config.c",)}
MAX_LEN = 4096


def main() -> int:
    """Fuzz the targets that are named; 1 if one of them found something."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", help="targets; all if none is named")
    parser.add_argument("--seconds", type=int, default=60, help="for each target")
    parser.add_argument("--runs", type=int, default=-1, help="inputs for each target, at most")
    parser.add_argument("--work", type=Path, default=ROOT / "build" / "fuzz", help="where it builds")
    parser.add_argument("--keep", action="store_true", help="leave the corpus as it is")
    options = parser.parse_args()
    guided = shutil.which("clang") is not None
    if not guided:
        print("clang is not installed: only the corpus is run through the targets", file=sys.stderr)
    failed = 0
    for name in options.names or targets():
        work = options.work / name
        work.mkdir(parents=True, exist_ok=True)
        program = build(name, work, guided=guided)
        failed += fuzz(name, program, work, options) if guided else replay(program, name)
    return int(failed != 0)


def targets() -> list[str]:
    """Name every target."""
    return sorted(path.stem for path in HERE.glob("*.c") if path.stem != "replay")


def build(name: str, work: Path, *, guided: bool) -> Path:
    """Compile a target: with libFuzzer, or with a main that replays files."""
    program = work / "target"
    kinds = f"{SANITIZE},fuzzer" if guided else SANITIZE
    compiler = ["clang" if guided else "gcc", *FLAGS, f"-fsanitize={kinds}", "-fno-sanitize-recover=all"]
    sources = [HERE / f"{name}.c", *(ROOT / source for source in SOURCES.get(name, ()))]
    sources += [] if guided else [HERE / "replay.c"]
    includes = [f"-I{ROOT / folder}" for folder in INCLUDES]
    subprocess.run([*compiler, *includes, *map(str, sources), "-o", str(program)], check=True)
    return program


def fuzz(name: str, program: Path, work: Path, options: argparse.Namespace) -> int:
    """Run libFuzzer from the corpus on; return its exit code."""
    corpus, found = HERE / "corpus" / name, work / "found"
    found.mkdir(exist_ok=True)
    limits = [f"-max_total_time={options.seconds}", f"-runs={options.runs}", f"-max_len={MAX_LEN}"]
    limits += ["-timeout=20", f"-artifact_prefix={work}/", "-print_final_stats=1", "-seed=20"]
    done = subprocess.run(
        [str(program), *limits, str(found), str(corpus)], capture_output=True, text=True, check=False
    )
    executed = [line for line in done.stderr.splitlines() if "number_of_executed_units" in line]
    print(
        f"{name:10} {executed[0].split()[-1] if executed else '?':>10} inputs  "
        f"{'FOUND SOMETHING' if done.returncode else 'nothing found'}",
        flush=True,
    )
    if done.returncode:
        print(done.stderr[-4000:], file=sys.stderr)
    elif not options.keep:
        merge = [str(program), "-merge=1", str(corpus), str(found)]
        subprocess.run(merge, capture_output=True, check=False)
    return done.returncode


def replay(program: Path, name: str) -> int:
    """Run the corpus through a target without libFuzzer; return its exit code."""
    inputs = sorted(map(str, (HERE / "corpus" / name).iterdir()))
    return subprocess.run([str(program), *inputs], check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
