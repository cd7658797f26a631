"""The host: KVM, the TPM, the kernel, memory that must not be read or written out."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from cafe_lib.doctor.finding import Finding, Machine, fail, ok, warn

KVM_API_VERSION: Final = 12
KVM_CAPABILITIES: Final = {
    3: "user memory",
    7: "CPUID",
    55: "XSAVE",
    56: "XCR0",
    74: "registers in the run page",
    136: "immediate exit",
}
"""By their numbers in linux/kvm.h: what the VMM does not run without."""
TPM_DEVICE: Final = "/dev/tpmrm0"
_FUTEX_WAITV: Final = (5, 16)
_ENOUGH_MEMLOCK: Final = 1 << 30
_NO_DUMPS: Final = ("", "|/bin/false", "|/usr/bin/false")


def check_kvm(machine: Machine) -> Iterator[Finding]:
    """Look whether this process can run enclaves under KVM."""
    why = "an enclave is a KVM virtual machine; the emulator in its place is slow and no strong boundary"
    usable = machine.may_use("/dev/kvm")
    if usable is None:
        todo = "switch virtualisation on in the firmware (nested, in a VM) and load kvm_intel or kvm_amd"
        yield fail("kvm", "there is no /dev/kvm", why, todo)
        return
    facts = machine.kvm(tuple(KVM_CAPABILITIES)) if usable else None
    if facts is None:
        todo = "run as a member of the group kvm: usermod -aG kvm USER, then log in again"
        yield fail("kvm", "/dev/kvm may not be opened", why, todo)
        return
    missing = [name for number, name in KVM_CAPABILITIES.items() if facts.capabilities.get(number, 0) <= 0]
    if facts.api_version != KVM_API_VERSION or missing:
        what = f"API version {facts.api_version}, without: {', '.join(missing) or 'nothing'}"
        yield fail("kvm", what, why, "use a newer kernel, or a hypervisor below with whole nested KVM")
    else:
        yield ok("kvm", f"API version {facts.api_version} with all that is needed", why)


def check_tpm(machine: Machine) -> Iterator[Finding]:
    """Look for a TPM 2.0 or a software one."""
    why = "the agent shows the server by a TPM's quote what this host runs"
    usable = machine.may_use(TPM_DEVICE)
    if usable:
        yield ok("tpm", TPM_DEVICE, why)
    elif usable is False:
        yield fail("tpm", f"{TPM_DEVICE} may not be opened", why, "run as a member of the group tss")
    elif machine.program("swtpm"):
        todo = "for a trial, a software TPM is fine (`make demo` uses one); a real host needs a TPM 2.0"
        yield warn("tpm", f"no {TPM_DEVICE}, but swtpm", why, todo)
    else:
        yield fail("tpm", "none", why, "switch the TPM on in the firmware; for a trial: apt install swtpm")


def check_kernel(machine: Machine) -> Iterator[Finding]:
    """Look at what the kernel offers, and at what its root may do to a running enclave."""
    release = machine.read("/proc/sys/kernel/osrelease") or "unknown"
    found = re.match(r"(\d+)\.(\d+)", release)
    why = "the VMM sleeps on several channels at once (futex_waitv, Linux 5.16)"
    if found and (int(found[1]), int(found[2])) >= _FUTEX_WAITV:
        yield ok("kernel", release, why)
    else:
        yield fail("kernel", release, why, "use Linux 5.16 or later")
    why = "with lockdown, root cannot read the kernel's memory or load unsigned code into it"
    lockdown = machine.read("/sys/kernel/security/lockdown") or ""
    if "[confidentiality]" in lockdown:
        yield ok("kernel lockdown", "confidentiality", why)
    else:
        mode = next(iter(re.findall(r"\[(\w+)\]", lockdown)), "not available")
        todo = "boot a production host with lockdown=confidentiality, and have that measured"
        yield warn("kernel lockdown", mode, why, todo)
    yield _ptrace(machine.read("/proc/sys/kernel/yama/ptrace_scope"))


def _ptrace(scope: str | None) -> Finding:
    why = "processes of the agent's user must not read each other; the VMM refuses by itself, others do not"
    if scope in ("1", "2", "3"):
        return ok("ptrace", f"restricted ({scope})", why)
    found = "any process of the same user" if scope == "0" else "no Yama in this kernel"
    return warn(
        "ptrace", found, why, "sysctl kernel.yama.ptrace_scope=2, and nothing else as the agent's user"
    )


def check_memory(machine: Machine) -> Iterator[Finding]:
    """Look at what could carry an enclave's memory to a disk, and at how much may be locked."""
    yield _swap(machine)
    yield _memlock(machine.memlock_bytes())
    yield _core_pattern(machine.read("/proc/sys/kernel/core_pattern") or "")
    yield _huge_pages(machine)


def _swap(machine: Machine) -> Finding:
    why = "memory of an enclave that is not locked could be written to disk, where it stays"
    areas = [line.split()[0] for line in (machine.read("/proc/swaps") or "").splitlines()[1:] if line.strip()]
    plain = [area for area in areas if not _encrypted(machine, area)]
    if not areas:
        return ok("swap", "off", why)
    if not plain:
        return ok("swap", f"encrypted, or in memory: {', '.join(areas)}", why)
    return warn(
        "swap", f"not known to be encrypted: {', '.join(plain)}", why, "swapoff -a, or swap on dm-crypt"
    )


def _encrypted(machine: Machine, area: str) -> bool:
    """Say whether a swap device is a dm-crypt mapping, or compressed memory."""
    device = area.rpartition("/")[2]
    if device.startswith("zram"):
        return True
    kind = machine.read(f"/sys/block/{device}/dm/uuid") or ""
    if area.startswith("/dev/mapper/"):
        blocks = [name for name in machine.names("/sys/block") if name.startswith("dm-")]
        named = [name for name in blocks if machine.read(f"/sys/block/{name}/dm/name") == device]
        kind = machine.read(f"/sys/block/{named[0]}/dm/uuid") or "" if named else ""
    return kind.startswith("CRYPT-")


def _memlock(limit: int | None) -> Finding:
    why = "the VMM locks an enclave's memory, so that it is never swapped out"
    if limit is None or limit >= _ENOUGH_MEMLOCK:
        return ok("RLIMIT_MEMLOCK", "unlimited" if limit is None else f"{limit >> 20} MiB", why)
    todo = "LimitMEMLOCK=infinity in the agent's service, or ulimit -l unlimited"
    return warn("RLIMIT_MEMLOCK", f"{limit >> 10} KiB", why, todo)


def _core_pattern(pattern: str) -> Finding:
    why = "agent and VMM forbid dumps of themselves; a program that calls them may still be dumped"
    if pattern in _NO_DUMPS:
        return ok("core dumps", pattern or "none", why)
    todo = "sysctl kernel.core_pattern='|/bin/false', and LimitCORE=0 for what handles results"
    return warn("core dumps", pattern, why, todo)


def _huge_pages(machine: Machine) -> Finding:
    why = "2 MiB pages make an enclave's first touch of its memory much cheaper"
    setting = machine.read("/sys/kernel/mm/transparent_hugepage/shmem_enabled") or ""
    chosen = next(iter(re.findall(r"\[(\w+)\]", setting)), "not available")
    if chosen in ("always", "within_size", "advise", "force"):
        return ok("huge pages", f"shared memory: {chosen}", why)
    todo = "echo advise >/sys/kernel/mm/transparent_hugepage/shmem_enabled"
    return warn("huge pages", f"shared memory: {chosen}", why, todo)
