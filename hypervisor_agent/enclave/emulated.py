"""A CPU in ring 3 under Unicorn, with the enclave's mappings; what it does reaches its owner as callbacks.

Unicorn starts in ring 0 without paging. A short-lived page with an ``iretq`` brings it to ring 3, so that
privileged instructions fault; supervisor pages are not mapped at all.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Any, Final, Protocol

import unicorn
from unicorn import x86_const as x86

from hypervisor_agent.abi import PAGE, VECTOR_UNKNOWN, VmmConfig
from hypervisor_agent.enclave.debugged import watch
from hypervisor_agent.enclave.debugger import Debugger

_GENERAL_PROTECTION: Final = 13
_PAGE_FAULT: Final = 14
_UNDEFINED: Final = 6
_EXCEPTIONS: Final = 32
_BOOT_ADDRESS: Final = 1 << 20  # below everything the loader maps; gone before secret code runs
_NOWHERE: Final = (1 << 64) - 1
_IRETQ: Final = b"\x48\xcf"
_GDT: Final = struct.pack("<7Q", 0, 0x00AF9B000000FFFF, 0, 0, 0, 0x00CFF3000000FFFF, 0x00AFFB000000FFFF)
_USER_CODE: Final = 0x33
_USER_DATA: Final = 0x2B
_RFLAGS: Final = 0x3002  # IOPL 3: which ports may be used is decided in the hook
_CLEARED: Final = ("RAX", "RBX", "RCX", "RDX", "RSI", "RBP", *(f"R{number}" for number in range(8, 16)))
# Page fault error codes (SDM vol. 3, 4.7) by what Unicorn reports.
_ERROR_CODES: Final = {
    unicorn.UC_MEM_READ_UNMAPPED: 0x04,
    unicorn.UC_MEM_WRITE_UNMAPPED: 0x06,
    unicorn.UC_MEM_FETCH_UNMAPPED: 0x14,
    unicorn.UC_MEM_READ_PROT: 0x05,
    unicorn.UC_MEM_WRITE_PROT: 0x07,
    unicorn.UC_MEM_FETCH_PROT: 0x15,
}


@dataclass(frozen=True, slots=True)
class Fault:
    """A CPU exception in secret code."""

    vector: int
    error_code: int = 0
    rip: int = 0
    address: int = 0


class Owner(Protocol):
    """Who is told what the CPU does."""

    def on_out(self, port: int, size: int, value: int, argument: int) -> None:
        """Serve an ``out``; ``argument`` is RDI."""

    def on_fault(self, fault: Fault) -> None:
        """Take note of an exception; the CPU stops."""


class EmulatedCpu:
    """One CPU. ``map`` the memory, then ``run`` until something calls ``stop``."""

    def __init__(self, owner: Owner, debugger: Debugger | None = None) -> None:
        self._owner = owner
        self._debugger = debugger
        self._uc: Any = unicorn.Uc(unicorn.UC_ARCH_X86, unicorn.UC_MODE_64)
        self._uc.ctl_set_cpu_model(x86.UC_CPU_X86_HASWELL)

    def map(self, address: int, size: int, host_address: int, *, writable: bool, executable: bool) -> None:
        """Map host memory for ring 3."""
        rights = unicorn.UC_PROT_READ
        rights |= unicorn.UC_PROT_WRITE if writable else 0
        rights |= unicorn.UC_PROT_EXEC if executable else 0
        self._uc.mem_map_ptr(address, size, rights, host_address)

    def run(self, config: VmmConfig) -> None:
        """Enter as vCPU 0 at ``config.rip`` in ring 3 and run until :meth:`stop` or a fault."""
        self._enter_ring3(config)
        self._hook()
        try:
            self._uc.emu_start(config.rip, _NOWHERE)
        except unicorn.UcError:
            self._fault(VECTOR_UNKNOWN)  # the owner keeps the first report, which a hook has made

    def stop(self) -> None:
        """Make :meth:`run` return soon; may be called from another thread."""
        self._uc.emu_stop()

    @property
    def rip(self) -> int:
        """Where it is; exact only when it has stopped."""
        return int(self._uc.reg_read(x86.UC_X86_REG_RIP))

    def _enter_ring3(self, config: VmmConfig) -> None:
        uc, frame = self._uc, _BOOT_ADDRESS + PAGE // 2
        uc.mem_map(_BOOT_ADDRESS, PAGE)
        uc.mem_write(_BOOT_ADDRESS, _IRETQ)
        uc.mem_write(_BOOT_ADDRESS + 64, _GDT)
        uc.mem_write(
            frame, struct.pack("<5Q", config.rip, _USER_CODE, _RFLAGS, config.vcpus[0].rsp, _USER_DATA)
        )
        uc.reg_write(x86.UC_X86_REG_GDTR, (0, _BOOT_ADDRESS + 64, len(_GDT) - 1, 0))
        uc.reg_write(x86.UC_X86_REG_RSP, frame)
        uc.emu_start(_BOOT_ADDRESS, config.rip, count=1)
        uc.mem_unmap(_BOOT_ADDRESS, PAGE)
        uc.reg_write(x86.UC_X86_REG_GDTR, (0, 0, 0, 0))
        for name in _CLEARED:
            uc.reg_write(getattr(x86, f"UC_X86_REG_{name}"), 0)
        uc.reg_write(x86.UC_X86_REG_RDI, config.rdi)
        uc.reg_write(x86.UC_X86_REG_FS_BASE, config.vcpus[0].fs_base)
        uc.reg_write(x86.UC_X86_REG_FPCW, 0x37F)
        uc.reg_write(x86.UC_X86_REG_MXCSR, 0x1F80)

    def _hook(self) -> None:
        add = self._uc.hook_add
        add(unicorn.UC_HOOK_INSN, self._on_out, None, 1, 0, x86.UC_X86_INS_OUT)
        add(unicorn.UC_HOOK_INSN, self._on_in, None, 1, 0, x86.UC_X86_INS_IN)
        for number in (x86.UC_X86_INS_SYSCALL, x86.UC_X86_INS_SYSENTER):
            add(unicorn.UC_HOOK_INSN, self._on_syscall, None, 1, 0, number)
        add(unicorn.UC_HOOK_INTR, self._on_exception)
        add(unicorn.UC_HOOK_INSN_INVALID, self._on_invalid)
        add(unicorn.UC_HOOK_MEM_INVALID, self._on_memory)
        if self._debugger is not None:
            watch(self._uc, 0, self._debugger)

    def _fault(self, vector: int, error_code: int = 0, address: int = 0) -> None:
        if self._debugger is not None and vector != VECTOR_UNKNOWN:
            self._debugger.on_fault(0, vector)
        self._owner.on_fault(Fault(vector, error_code, self.rip, address))
        self.stop()

    def _on_out(self, uc: Any, port: int, size: int, value: int, _: object) -> None:  # noqa: ANN401 - unicorn
        self._owner.on_out(port, size, value, uc.reg_read(x86.UC_X86_REG_RDI))

    def _on_in(self, *_: object) -> int:
        self._fault(_GENERAL_PROTECTION)
        return 0

    def _on_syscall(self, *_: object) -> None:
        self._fault(_UNDEFINED)

    def _on_exception(self, _: object, number: int, __: object) -> None:
        self._fault(number if number < _EXCEPTIONS else _GENERAL_PROTECTION)

    def _on_invalid(self, *_: object) -> bool:
        self._fault(_UNDEFINED)
        return False

    def _on_memory(self, *arguments: Any) -> bool:  # noqa: ANN401 - (uc, access, address, size, value, data)
        self._fault(_PAGE_FAULT, _ERROR_CODES.get(arguments[1], 0), arguments[2])
        return False
