"""How an enclave ended, as a typed error that says where without telling any address."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Final

from cafe_lib.errors import DeadlineError, EnclaveError, ExitedError, FaultError, KvmError
from hypervisor_agent.abi import VECTOR_UNKNOWN, EventKind, Status, VmmEvent
from hypervisor_agent.plan import EnclavePlan, Region

_VECTORS: Final = {
    0: "#DE (divide error)",
    1: "#DB (debug exception)",
    3: "#BP (breakpoint)",
    4: "#OF (overflow)",
    5: "#BR (bound range)",
    6: "#UD (undefined instruction)",
    7: "#NM (no FPU)",
    8: "#DF (double fault)",
    10: "#TS (task state)",
    11: "#NP (segment not present)",
    12: "#SS (stack segment)",
    13: "#GP (general protection)",
    14: "#PF (page fault)",
    16: "#MF (x87)",
    17: "#AC (alignment)",
    18: "#MC (machine check)",
    19: "#XM (SIMD floating point)",
    21: "#CP (control protection)",
    VECTOR_UNKNOWN: "a fault at an unknown place",
}
_PAGE_FAULT: Final = 14
_NULL_BYTES: Final = 1 << 20
_NEAR_BYTES: Final = 1 << 20  # the loader leaves this much unmapped around every area
_STEPS: Final = {
    1: "isolating the process",
    2: "opening /dev/kvm",
    3: "creating a VM",
    4: "creating a vCPU",
    5: "receiving the configuration",
    6: "checking the configuration",
    7: "checking the descriptors",
    8: "mapping the memory",
    9: "giving the VM its memory",
    10: "setting CPUID (does the host have the instructions the image needs?)",
    11: "setting the CPU's state",
    12: "installing the system call filter",
    13: "running the vCPU",
}


@dataclass(frozen=True, slots=True)
class Outcome:
    """The end of an enclave."""

    status: Status
    """What waiting calls are told."""
    error: EnclaveError | KvmError
    vector: str = ""
    image_offset: int | None = None
    """Where in the secret image, if it was there."""


def outcome_of(event: VmmEvent, plan: EnclavePlan) -> Outcome:
    """Return what a VMM's last event means."""
    offset = _image_offset(event.rip, plan)
    if event.kind is EventKind.FAULT:
        vector = _VECTORS.get(event.vector, f"vector {event.vector}")
        detail = f"{vector}{_place(offset)}{_target(event, plan)}"
        return Outcome(Status.FAULT, FaultError(detail), vector, offset)
    if event.kind is EventKind.DEADLINE:
        detail = f"over its deadline of {plan.config.deadline_ns // 1_000_000} ms{_place(offset)}"
        return Outcome(Status.DEADLINE, DeadlineError(detail), image_offset=offset)
    if event.kind is EventKind.HOST:
        step = _STEPS.get(event.rip, f"step {event.rip}")
        return Outcome(Status.HOST, KvmError(f"{step}: {os.strerror(event.status)}"))
    status = Status(event.status) if event.status in set(Status) else Status.ABORT
    return Outcome(status, ExitedError(f"the secret code gave up ({status.name.lower()})"))


def vanished() -> Outcome:
    """Return the outcome of a VMM that ended without a word."""
    return Outcome(Status.EXITED, ExitedError("the enclave's process has gone"))


def _image_offset(address: int, plan: EnclavePlan) -> int | None:
    offset = address - plan.image_base
    return offset if 0 <= offset < plan.image_bytes else None


def _place(offset: int | None) -> str:
    return "" if offset is None else f" at image offset {offset:#x}"


def _target(event: VmmEvent, plan: EnclavePlan) -> str:
    """Describe the address of a page fault by what is there or near."""
    if event.vector != _PAGE_FAULT:
        return ""
    kind = "jump to" if event.error_code & 0x10 else "write to" if event.error_code & 2 else "read of"
    if event.address < _NULL_BYTES:
        return f", {kind} a null pointer"
    nearest = min(plan.regions, key=lambda region: _distance(event.address, region))
    distance = _distance(event.address, nearest)
    if distance == 0:
        return f", {kind} {nearest.name} + {event.address - nearest.address:#x}"
    if distance <= _NEAR_BYTES:
        side = "below" if event.address < nearest.address else "above"
        return f", {kind} an address {side} {nearest.name}"
    return f", {kind} an unmapped address"


def _distance(address: int, region: Region) -> int:
    """Return 0 inside, else how many bytes away."""
    return max(region.address - address, address - region.end + 1, 0)
