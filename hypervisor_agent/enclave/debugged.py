"""How gdb's debugger gets at a CPU under Unicorn."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from typing import Any, Final

import unicorn
from unicorn import x86_const as x86

from cafe_lib.errors import HostError, MalformedError
from hypervisor_agent.abi import BOOT, VmmConfig
from hypervisor_agent.enclave.debugger import Debugger
from hypervisor_agent.enclave.gdbaddress import Gdb, listen
from hypervisor_agent.enclave.gdbserver import serve_gdb
from hypervisor_agent.enclave.walk import user_mappings

_RENAMED: Final = {
    "fctrl": "FPCW",
    "fstat": "FPSW",
    "ftag": "FPTAG",
    "fop": "FOP",
    "fioff": "FIP",
    "fiseg": "FCS",
    "fooff": "FDP",
    "foseg": "FDS",
}
_PAGE: Final = 4096
_BOOT_BASE: Final = 5  # the field of struct cafe_boot that says where the image lies


def start_debugger(
    gdb: Gdb, config: VmmConfig, memory: memoryview, end: Callable[[], object]
) -> Debugger | None:
    """Serve gdb in a thread; None, with a word on stderr, where the address is another enclave's already."""
    try:
        listener = listen(gdb.address)
    except HostError as error:
        print(f"cafe-agent: {error.detail}", file=sys.stderr)  # noqa: T201 - an emulator has no other log
        return None
    debugger = Debugger(image_base(config, memory), 1, end, wait=gdb.wait)
    threading.Thread(target=serve_gdb, args=(listener, debugger), name="gdb", daemon=True).start()
    return debugger


def image_base(config: VmmConfig, memory: memoryview) -> int:
    """Return where the secret image lies, as the boot page tells the runtime.

    :raises MalformedError: the boot page is not mapped.
    """
    for part in user_mappings(memory, config.cr3):
        offset = config.rdi - part.address
        if 0 <= offset < part.size:
            return int(BOOT.unpack_from(memory, part.physical + offset)[_BOOT_BASE])
    raise MalformedError("the boot page is not mapped")


def _number(name: str) -> int | None:
    found = getattr(x86, f"UC_X86_REG_{_RENAMED.get(name, name.upper())}", None)
    return found if isinstance(found, int) else None


class UnicornCpu:
    """A vCPU as the debugger sees it."""

    def __init__(self, uc: Any) -> None:  # noqa: ANN401 - unicorn
        self._uc = uc

    def read_register(self, name: str) -> int | None:
        """See the port; a register of the x87 stack is mantissa and exponent."""
        number = _number(name)
        if number is None:
            return None
        value = self._uc.reg_read(number)
        return value[1] << 64 | value[0] if isinstance(value, tuple) else int(value)

    def write_register(self, name: str, value: int) -> bool:
        """See the port."""
        number = _number(name)
        if number is None:
            return False
        if name.startswith("st"):
            self._uc.reg_write(number, (value & (2**64 - 1), value >> 64))
        else:
            self._uc.reg_write(number, value)
        return True

    def read_memory(self, address: int, size: int) -> bytes:
        """See the port."""
        found = bytearray()
        while size:
            part = min(size, _PAGE - address % _PAGE)
            try:
                found += self._uc.mem_read(address, part)
            except unicorn.UcError:
                break
            address, size = (address + part) % 2**64, size - part
        return bytes(found)

    def write_memory(self, address: int, data: bytes) -> bool:
        """See the port."""
        try:
            self._uc.mem_write(address, data)
        except unicorn.UcError:
            return False
        self._uc.ctl_remove_cache(address, address + len(data))  # it may have been code
        return True


def watch(uc: Any, index: int, debugger: Debugger) -> None:  # noqa: ANN401 - unicorn
    """Have the debugger asked before every instruction of vCPU ``index``; before it runs."""
    debugger.add_cpu(index, UnicornCpu(uc))

    def on_code(_: object, address: int, __: int, ___: object) -> None:
        debugger.on_instruction(index, address)

    uc.hook_add(unicorn.UC_HOOK_CODE, on_code)
