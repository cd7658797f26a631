"""A small program under Unicorn with the debugger in between: what gdb meets in an emulated enclave."""

from __future__ import annotations

import contextlib
import subprocess
import threading
from pathlib import Path
from typing import Any

import unicorn
from elftools.elf.elffile import ELFFile
from unicorn import x86_const as x86

from hypervisor_agent.enclave.debugged import watch
from hypervisor_agent.enclave.debugger import Debugger

BASE = 0x7ABC00000000
STACK = 0x7FFF00000000
SOURCE = Path(__file__).parent.parent / "guests" / "gdb" / "machine.c"


def compile_machine(directory: Path) -> Path:
    """Compile and link it as `cafe build` links a secret image: position-independent, with DWARF."""
    image = directory / "image.elf"
    flags = ["-g", "-Og", "-fPIE", "-ffreestanding", "-fno-stack-protector", "-fcf-protection=none"]
    options = "-pie,--no-dynamic-linker,--build-id=none,-z,norelro,-Ttext-segment=0x1000"
    link = ["-nostdlib", "-static", f"-Wl,{options}"]
    subprocess.run(["gcc", *flags, *link, SOURCE, "-o", image], check=True)
    return image


class TinyMachine:
    """One or more CPUs that run the program until stopped."""

    def __init__(self, image: Path, *, cpus: int = 1, wait: bool = False) -> None:
        self.fault = threading.Event()
        self.ended = threading.Event()
        self.debugger = Debugger(BASE, cpus, self.stop, wait=wait)
        with image.open("rb") as file:
            elf = ELFFile(file)
            self._entry = BASE + elf["e_entry"]
            self._loads = [
                (s["p_vaddr"], s["p_memsz"], s.data())
                for s in elf.iter_segments()
                if s["p_type"] == "PT_LOAD"
            ]
        self._cpus = [self._cpu(index) for index in range(cpus)]
        self._threads = [threading.Thread(target=self._run, args=(index,)) for index in range(cpus)]

    def _cpu(self, index: int) -> Any:  # noqa: ANN401 - unicorn
        uc = unicorn.Uc(unicorn.UC_ARCH_X86, unicorn.UC_MODE_64)
        end = max(address + size for address, size, _ in self._loads)
        uc.mem_map(BASE, -(-end // 4096) * 4096)
        for address, _, data in self._loads:
            uc.mem_write(BASE + address, data)
        uc.mem_map(STACK, 65536)
        uc.reg_write(x86.UC_X86_REG_RSP, STACK + 65536 - 8)
        watch(uc, index, self.debugger)
        uc.hook_add(unicorn.UC_HOOK_MEM_INVALID, self._on_memory, index)
        return uc

    def _on_memory(self, *arguments: Any) -> bool:  # noqa: ANN401 - unicorn
        self.debugger.on_fault(arguments[-1], 14)
        self.fault.set()
        return False

    def _run(self, index: int) -> None:
        with contextlib.suppress(unicorn.UcError):
            self._cpus[index].emu_start(self._entry, 0)
        self.ended.set()

    def start(self) -> None:
        """Let every CPU run, in a thread of its own."""
        self.debugger.on_ready()
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Make every CPU stop at its next instruction."""
        for uc in self._cpus:
            uc.emu_stop()

    def close(self) -> None:
        """Stop and wait."""
        self.stop()
        self.debugger.detach()
        for thread in self._threads:
            while thread.is_alive():
                self.stop()
                thread.join(0.05)
