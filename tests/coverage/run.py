"""`make coverage`: every branch of the C code that handles what somebody else wrote is taken, or it fails.

The runtime's and the VMM's files are compiled as ordinary programs, each with a test beside this file that
plays everybody else: guest, secret code, agent, other vCPUs, kernel. gcov counts. With `--sanitize` the same
programs run under ASan and UBSan instead, as `make test` does.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
VMM, RUNTIME, INCLUDE = (
    ROOT / name for name in ("hypervisor_agent/vmm", "cafe_lib/runtime", "cafe_lib/include")
)

# What handles input of a hostile party, whole or the functions that are named; all of it must be covered.
INPUT_HANDLING: dict[str, tuple[str, ...]] = {
    "hypervisor_agent/vmm/config.c": (),  # the loader's configuration
    "hypervisor_agent/vmm/control.c": (),  # the agent's commands and descriptors
    "hypervisor_agent/vmm/main.c": (),  # the first message
    "hypervisor_agent/vmm/region.c": (),  # memory of guest processes
    "hypervisor_agent/vmm/run.c": (),  # whatever secret code does
    "hypervisor_agent/vmm/vm.c": ("vmm_sealed",),  # a descriptor that guests have too
    "hypervisor_agent/vmm/wake.c": (),  # words of guests, and the enclave's monitor
    "hypervisor_agent/vmm/watchdog.c": (),  # the same
    "cafe_lib/include/cafe_padding.h": (),  # what leaves or enters with holes in it
    "cafe_lib/include/cafe_size.h": (),  # size expressions over the guest's numbers
    "cafe_lib/runtime/rt.h": (),  # words of a frame
    "cafe_lib/runtime/rt_callback.c": (),  # what a guest says of a callback, and calls meanwhile
    "cafe_lib/runtime/rt_cross.h": (),  # copies and areas
    "cafe_lib/runtime/rt_heap.c": (),  # what secret code frees
    "cafe_lib/runtime/rt_large.c": (),  # offsets in the bulk area
    "cafe_lib/runtime/rt_serve.c": (),  # slots
    "cafe_lib/runtime/rt_stub.h": (),  # frames of callbacks
    "cafe_lib/runtime/rt_threads.c": (),  # locks of secret code
}
# (file, a line of it as it stands there): why one of its branches cannot be taken.
EXCUSED = {
    ("hypervisor_agent/vmm/config.c", "return bytes <= end && start <= end - bytes;"): (
        "every caller's `bytes` is bounded by then; the function is right without knowing that"
    ),
}

WARN = ("-std=gnu17", "-g", "-O0", "-pthread", "-Wall", "-Wextra", "-Werror", "-Wno-missing-attributes")
COUNT = ("--coverage", "-fprofile-update=atomic")
SANITIZE = ("-fsanitize=address,undefined", "-fno-sanitize-recover=all")
WRAPPED = ("ioctl", "mmap", "lseek", "recvmsg", "pthread_create", "_exit")
KERNEL = tuple(f"-Wl,--wrap={name}" for name in WRAPPED)
PLAY = ("-include", str(HERE / "rt_play.h"))
ALLOCATOR = (
    *("malloc", "free", "calloc", "realloc", "aligned_alloc", "posix_memalign", "memalign"),
    *("malloc_usable_size", "__libc_malloc", "__libc_calloc", "__libc_realloc", "__libc_free"),
)
SECONDS = 60


@dataclass(frozen=True)
class Program:
    """A test with the project's files that it drives."""

    parts: tuple[Path, ...]
    also: tuple[str, ...] = ()  # of this folder
    flags: tuple[str, ...] = ()
    part_flags: tuple[str, ...] = ()  # of `parts` alone
    link: tuple[str, ...] = ()


def _vmm(*names: str, flags: tuple[str, ...] = ()) -> Program:
    return Program(tuple(VMM / f"{name}.c" for name in names), ("kernel.c",), part_flags=flags, link=KERNEL)


def _runtime(*names: str) -> Program:
    parts = tuple(RUNTIME / name for name in ("rt_enter.S", *(f"{name}.c" for name in names)))
    return Program(parts, ("play.c",), PLAY, ("-DPLAY_MEMORY",))


ALL = ("control", "region", "run", "wake", "watchdog", "vm", "cpu")
PROGRAMS = {
    "vmm_config": Program((VMM / "config.c",)),
    "vmm_control": _vmm(*(name for name in ALL if name != "run")),
    "vmm_hostile": _vmm(*ALL),
    "vmm_main": _vmm("main", "control", flags=("-Dmain=vmm_main",)),
    "vmm_run": _vmm(*ALL),
    "vmm_sleep": _vmm(*ALL),
    "rt_serving": _runtime("rt_callback", "rt_large", "rt_threads"),
    "rt_calling_back": _runtime("rt_serve", "rt_callback", "rt_large", "rt_threads"),
    "rt_parts": _runtime("rt_serve", "rt_callback", "rt_large", "rt_threads"),
    "rt_racing": _runtime("rt_serve", "rt_callback", "rt_large", "rt_threads"),
    "rt_memory": Program(
        (RUNTIME / "rt_threads.c",),
        flags=(*PLAY, "-fno-builtin", *(f"-D{name}=own_{name}" for name in ALLOCATOR)),
    ),
}


def build(name: str, place: Path, kind: tuple[str, ...]) -> Path:
    """Compile and link a program in a folder of its own."""
    made, objects = PROGRAMS[name], []
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir(parents=True)
    includes = [f"-I{folder}" for folder in (INCLUDE, RUNTIME, VMM, HERE)]
    own = [HERE / f"{name}.c", *(HERE / source for source in made.also)]
    for source in (*own, *made.parts):
        extra = () if source in own else made.part_flags
        flags = () if source.suffix == ".S" else (*made.flags, *extra)
        objects.append(place / f"{source.stem}.part{source in own:d}.o")
        command = ["gcc", *WARN, *kind, *flags, *includes, "-c", str(source), "-o", str(objects[-1])]
        subprocess.run(command, check=True)
        if source.name == "rt_threads.c":
            _rename(objects[-1])
    program = place / name
    command = ["gcc", "-pthread", *kind, *map(str, objects), *made.link, "-o", str(program)]
    subprocess.run(command, check=True)
    return program


def _rename(compiled: Path) -> None:
    """Give the locks other names than libc's, which the program itself needs."""
    listing = subprocess.run(["nm", str(compiled)], check=True, capture_output=True, text=True).stdout
    names = [line.split()[2] for line in listing.splitlines() if " T " in line and "pthread_" in line]
    renamed = [f"--redefine-sym={name}=own_{name}" for name in names]
    subprocess.run(["objcopy", *renamed, str(compiled)], check=True)


def run(program: Path) -> bool:
    """Run a program; say what it found, if anything."""
    command = ["timeout", str(SECONDS), str(program)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=program.parent)
    if done.returncode != 0 or "all good" not in done.stdout:
        print(f"{program.name} FAILED ({done.returncode})\n{done.stdout}{done.stderr}", file=sys.stderr)
        return False
    return True


@dataclass
class Counts:
    """What ran of one file: lines, and branches by line, function and place in the line."""

    lines: dict[int, int] = field(default_factory=lambda: defaultdict(int))
    branches: dict[tuple[int, str, int], int] = field(default_factory=lambda: defaultdict(int))


def count(place: Path, found: dict[str, Counts]) -> None:
    """Add what gcov knows of the objects in a folder."""
    data = sorted(str(path) for path in place.glob("*.gcda"))
    command = ["gcov", "--json-format", "--stdout", "--branch-probabilities", *data]
    text = subprocess.run(command, check=True, capture_output=True, text=True, cwd=place).stdout
    for document in filter(None, text.splitlines()):
        for unit in json.loads(document)["files"]:
            path = Path(unit["file"]).resolve()
            if path.is_relative_to(ROOT):
                _add(found[str(path.relative_to(ROOT))], unit)


def _add(counts: Counts, unit: dict[str, list[dict[str, object]]]) -> None:
    for line in unit["lines"]:
        function = str(line.get("function_name", ""))
        number = int(str(line["line_number"]))
        counts.lines[number] += int(str(line["count"]))
        branches = line["branches"]
        assert isinstance(branches, list)
        for index, branch in enumerate(branches):
            counts.branches[number, function, index] += branch["count"]


def _within(name: str, counts: Counts) -> Counts:
    """Keep the functions that are declared, if only some are."""
    functions = INPUT_HANDLING[name]
    if not functions:
        return counts
    kept = {key: taken for key, taken in counts.branches.items() if key[1] in functions}
    lines = {key[0] for key in kept}
    return Counts({number: counts.lines[number] for number in lines}, kept)


def report(found: dict[str, Counts]) -> bool:
    """Print a line for each file, then what was not taken; true if nothing is left."""
    missing: list[str] = []
    used: set[tuple[str, str]] = set()
    print(f"{'file':40} {'lines':>11} {'branches':>11}")
    for name in INPUT_HANDLING:
        counts = _within(name, found[name])
        text = (ROOT / name).read_text().splitlines()
        left = sorted({number for number, *_ in (key for key, taken in counts.branches.items() if not taken)})
        left += [number for number, taken in counts.lines.items() if not taken and number not in left]
        for number in left:
            key = (name, text[number - 1].strip())
            used.add(key)
            if key not in EXCUSED:
                missing.append(f"{name}:{number}: {key[1]}")
        print(f"{name:40} {_ratio(counts.lines):>11} {_ratio(counts.branches):>11}")
        if not counts.lines:
            missing.append(f"{name}: nothing of it ran")
    missing += [f"{name}: excused, but not left out: {line}" for name, line in EXCUSED.keys() - used]
    print("\n".join(["", "not taken:", *missing] if missing else ["", "every branch is taken"]))
    return not missing


def _ratio(counts: dict[int, int] | dict[tuple[int, str, int], int]) -> str:
    return f"{sum(map(bool, counts.values()))}/{len(counts)}"


def built(options: argparse.Namespace, kind: tuple[str, ...]) -> Iterator[Path]:
    """Build the programs that are named, or all."""
    for name in options.names or PROGRAMS:
        yield build(name, options.work / name, kind)


def main() -> int:
    """Exit code 0: all branches taken, or, with `--sanitize`, nothing found."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", choices=[*PROGRAMS, []], help="programs; all if none is named")
    parser.add_argument("--sanitize", action="store_true", help="run under ASan and UBSan, count nothing")
    parser.add_argument("--work", type=Path, default=ROOT / "build" / "coverage", help="where it builds")
    options = parser.parse_args()
    results = [run(program) for program in built(options, SANITIZE if options.sanitize else COUNT)]
    if options.sanitize or not all(results):
        return int(not all(results))
    found: dict[str, Counts] = defaultdict(Counts)
    for name in options.names or PROGRAMS:
        count(options.work / name, found)
    return int(not report(found))


if __name__ == "__main__":
    sys.exit(main())
