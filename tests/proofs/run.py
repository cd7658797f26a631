"""`make prove`: prove the harnesses beside this file with CBMC or Frama-C, or say what to install for that.

Exit code 0: all proven, or no tool is here; 1: a claim was not proven, or a false one was.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
INCLUDES = [
    f"-I{ROOT / name}"
    for name in ("cafe_lib/include", "cafe_lib/runtime", "cafe_lib/guest", "hypervisor_agent/vmm")
]
MISSING = """\
No prover is installed; nothing was proven. The same harnesses run as property tests in `make test`.
To prove them: `cbmc` (https://www.cprover.org/cbmc) on the PATH, or
  apt install --no-install-recommends frama-c-base why3 z3 cvc4\
"""
SECONDS = 60  # for one claim
BROKEN_SECONDS = 5  # a false one is given up sooner
Prover = Callable[[Path, list[str]], set[str]]


def main() -> int:
    """Prove every file; refuse a tool that proves what is false."""
    prover = find_prover()
    if prover is None:
        print(MISSING)
        return 0
    bad = 0
    for source in harness_files():
        names = harnesses(source)
        failed = prover(source, names)
        wanted = set(names) if source.stem == "broken" else set()
        good = failed == wanted
        bad += not good
        words = "refused, as it must be" if wanted else "proven"
        print(f"{source.name:12} {len(names):2} claims' harnesses {words if good else 'FAILED'}", flush=True)
        for name in sorted(failed ^ wanted):
            print(f"  {name}: {'proven though false' if wanted else 'not proven'}")
    return int(bad != 0)


def harness_files() -> list[Path]:
    """List the files that hold harnesses."""
    return sorted(path for path in HERE.glob("*.c") if path.stem != "native")


def harnesses(source: Path) -> list[str]:
    """Name the harnesses of a file."""
    return re.findall(r"^void (prove_\w+)\(void\) \{", source.read_text(), re.MULTILINE)


def find_prover() -> Prover | None:
    """Choose CBMC if it is here, else Frama-C with an SMT solver."""
    if shutil.which("cbmc"):
        return cbmc
    if all(shutil.which(name) for name in ("frama-c", "why3", "z3")):
        detect_solvers()
        check_lemmas()
        return frama_c
    return None


def cbmc(source: Path, names: list[str]) -> set[str]:
    """Return the harnesses that CBMC does not verify."""
    options = ["--bounds-check", "--pointer-check", "--unwind", "80", "--unwinding-assertions"]
    failed = set()
    for name in names:
        command = ["cbmc", *options, "-D__CPROVER__", *INCLUDES, "--function", name, str(source)]
        if subprocess.run(command, capture_output=True, check=False).returncode:
            failed.add(name)
    return failed


def frama_c(source: Path, names: list[str]) -> set[str]:
    """Return the harnesses of which WP leaves a goal open."""
    apart = re.sub(r"#ifndef __FRAMAC__.*?#endif", "", source.read_text(), flags=re.DOTALL)
    names = [name for name in names if f"{name}(void) {{" in apart]
    preprocess = " ".join(["-D__FRAMAC__", *INCLUDES, f"-I{HERE}"])
    inline, more = (_option(source, word) for word in ("inline", "prove"))
    command = ["frama-c", "-machdep", "gcc_x86_64", f"-cpp-extra-args={preprocess}", str(source)]
    command += [
        "-inline-calls",
        inline or "@all",
        "-wp",
        "-wp-fct",
        ",".join([*names, *filter(None, more.split(","))]),
    ]
    seconds = BROKEN_SECONDS if source.stem == "broken" else SECONDS
    command += ["-wp-prover", solvers(), "-wp-timeout", str(seconds)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    total = re.search(r"Proved goals:\s+(\d+) / (\d+)", done.stdout)
    if done.returncode or total is None or int(total[2]) < len(names):
        sys.exit(f"frama-c could not read {source.name}:\n{done.stdout}{done.stderr}")
    open_goals = re.findall(r"\[(?:Failed|Timeout|Unknown)\] Goal typed_(\w+)", done.stdout)
    failed = {name for name in names for goal in open_goals if goal.startswith(f"{name}_")}
    if int(total[1]) < int(total[2]) and not failed:
        sys.exit(f"frama-c left goals of {source.name} open:\n{done.stdout}")
    return failed


def _option(source: Path, word: str) -> str:
    """Find what a file asks for: functions to inline, or to prove the contracts of."""
    found = re.search(rf"frama-c: {word} (\S+)", source.read_text())
    return found[1] if found else ""


def solvers() -> str:
    """Name the solvers that are here, as WP does."""
    return ",".join(name for name in ("z3", "cvc4") if shutil.which(name))


def detect_solvers() -> None:
    """Tell why3 about them, in a file of this project's."""
    config = ROOT / "build" / "why3.conf"
    config.parent.mkdir(exist_ok=True)
    os.environ["WHY3CONFIG"] = str(config)
    subprocess.run(["why3", "config", "detect"], capture_output=True, check=True)


def check_lemmas() -> None:
    """Prove what proof.h gives to WP as known."""
    lemmas = HERE / "lemmas.smt2"
    done = subprocess.run(["z3", f"-T:{SECONDS}", str(lemmas)], capture_output=True, text=True, check=False)
    if done.stdout.split() != ["unsat"] * 2:
        sys.exit(f"{lemmas.name} is not proven: {done.stdout}")


if __name__ == "__main__":
    sys.exit(main())
