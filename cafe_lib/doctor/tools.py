"""What a developer's machine needs to build packages."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from cafe_lib.doctor.finding import Finding, Machine, ok, warn

_COMPILER: Final = ("gcc", "g++", "ld", "ar", "objdump", "objcopy", "addr2line")
_MUSL: Final = (
    "/usr/lib/x86_64-linux-musl/libc.a",
    "/usr/x86_64-linux-musl/lib64/libc.a",
    "/usr/lib/musl/lib/libc.a",
    "/usr/local/musl/lib/libc.a",
)


def check_tools(machine: Machine) -> Iterator[Finding]:
    """Look for the tools that `cafe build` runs; hosts and servers need none of them."""
    missing = [name for name in _COMPILER if machine.program(name) is None]
    why = "`cafe build` runs them; a host that only serves enclaves needs none"
    if missing:
        yield warn("compiler", f"absent: {', '.join(missing)}", why, "apt install gcc g++ binutils")
    else:
        yield ok("compiler", "gcc, g++ and binutils", why)
    why = "secret C code is linked with musl's libc.a"
    if any(machine.file_exists(path) for path in _MUSL):
        yield ok("musl", "present", why)
    else:
        yield warn("musl", "absent", why, "apt install musl-dev")
    why = "`cafe build` reads annotated headers with it"
    if machine.has_module("clang.cindex"):
        yield ok("libclang", "present", why)
    else:
        yield warn("libclang", "absent", why, "pip install libclang")
    for name, why, package in (
        ("rustc", "only for secret code, or callers, in Rust", "rustc"),
        ("gdb", "only to debug native and debug builds", "gdb"),
    ):
        if machine.program(name):
            yield ok(name, "present", why)
        else:
            yield warn(name, "absent", why, f"apt install {package}, if you want it")
