"""The processor: instructions that enclaves need, threads that share a core, mitigations, the clock."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from cafe_lib.doctor.finding import Finding, Machine, State, fail, ok, warn

_VULNERABILITIES: Final = "/sys/devices/system/cpu/vulnerabilities"
_LEVEL_2: Final = frozenset({"cx16", "lahf_lm", "popcnt", "sse4_1", "sse4_2", "ssse3"})
_LEVEL_3: Final = _LEVEL_2 | {"avx", "avx2", "bmi1", "bmi2", "f16c", "fma", "abm", "movbe", "xsave"}
_HARMLESS: Final = ("Not affected", "Mitigation:")
_REMEDIES: Final = {
    "spec_store_bypass": "boot with spec_store_bypass_disable=on if secret code handles keys, or accept it",
    "old_microcode": "install the processor vendor's microcode package and reboot",
    "spec_rstack_overflow": "install the processor vendor's microcode; in a VM, its provider must",
    "l1tf": "boot with l1tf=full,force, which also switches SMT off",
    "mds": "boot with mds=full,nosmt, and install microcode",
    "mmio_stale_data": "boot with mmio_stale_data=full,nosmt, and install microcode",
    "tsx_async_abort": "boot with tsx=off",
}
_ANY_REMEDY: Final = "drop mitigations=off from the boot options, update kernel and microcode"


def check_instructions(machine: Machine) -> Iterator[Finding]:
    """Look for what the runtime needs, and which ISA levels images may ask for."""
    flags = _flags(machine)
    why = "the runtime takes random bytes from RDRAND: there is no kernel in an enclave to ask"
    if "rdrand" in flags:
        yield ok("cpu: rdrand", "present", why)
    else:
        yield fail("cpu: rdrand", "absent", why, "use a processor, or a VM's CPU model, that has RDRAND")
    level = 3 if flags >= _LEVEL_3 else 2 if flags >= _LEVEL_2 else 1
    name = "x86-64" if level == 1 else f"x86-64-v{level}"
    why = "an image says in its manifest which instructions it needs"
    if level >= 2:  # noqa: PLR2004 - what most images are built for
        yield ok("cpu: ISA level", f"images up to {name}", why)
    else:
        todo = "releases that were built with a higher isa do not start here"
        yield warn("cpu: ISA level", f"images up to {name}", why, todo)


def _flags(machine: Machine) -> frozenset[str]:
    for line in (machine.read("/proc/cpuinfo") or "").splitlines():
        name, _, value = line.partition(":")
        if name.strip() == "flags":
            return frozenset(value.split())
    return frozenset()


def check_smt(machine: Machine) -> Iterator[Finding]:
    """Look whether an enclave may have a stranger on the other thread of its core."""
    why = "a tenant on the other hardware thread of an enclave's core can measure what it does"
    active = machine.read("/sys/devices/system/cpu/smt/active")
    if active == "0":
        yield ok("cpu: SMT", "off, or one thread per core", why)
    elif active is None:
        todo = "ask whoever runs the host below; see the threat model"
        yield warn("cpu: SMT", "unknown", why, todo)
    elif machine.core_scheduling():
        todo = "put each VM, and the agent, in a core-scheduling group of its own, or boot with nosmt"
        yield warn("cpu: SMT", "on; the kernel has core scheduling", why, todo)
    else:
        todo = "boot with nosmt, or use a kernel with core scheduling (CONFIG_SCHED_CORE)"
        yield warn("cpu: SMT", "on; the kernel has no core scheduling", why, todo)


def check_vulnerabilities(machine: Machine) -> Iterator[Finding]:
    """Repeat what the kernel says of each known flaw of this processor."""
    names = machine.names(_VULNERABILITIES)
    why = "an unmitigated flaw lets one VM read what another computes, enclaves included"
    if not names:
        yield warn("cpu: flaws", "the kernel does not say", why, "use a kernel of this decade, with sysfs")
    for name in names:
        text = (machine.read(f"{_VULNERABILITIES}/{name}") or "unknown").splitlines()[0]
        yield _flaw(name, text, why)


def _flaw(name: str, text: str, why: str) -> Finding:
    title = f"cpu: {name}"
    if not text.startswith(_HARMLESS):
        return warn(title, text, why, _REMEDIES.get(name, _ANY_REMEDY))
    if "SMT vulnerable" in text:
        return warn(
            title, text, why, "boot with nosmt: the mitigation does not hold between threads of a core"
        )
    return Finding(title, State.OK, text, why)


def check_clock(machine: Machine) -> Iterator[Finding]:
    """Look whether time can be read without a system call."""
    where = "/sys/devices/system/clocksource/clocksource0/current_clocksource"
    source = machine.read(where) or "unknown"
    why = "both sides of a call time their waiting by the TSC; any other source costs a system call"
    if source == "tsc":
        yield ok("clock source", source, why)
    else:
        yield warn(
            "clock source", source, why, "see dmesg for why the TSC was found unstable; calls get slower"
        )
