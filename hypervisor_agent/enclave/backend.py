"""Which program runs an enclave: the VMM where there is KVM, else the emulator; can be forced."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Final, Literal

from cafe_lib.errors import HostError, KvmError
from hypervisor_agent.enclave.gdbaddress import Gdb

BackendName = Literal["auto", "kvm", "emulator"]
_DEVICE: Final = Path("/dev/kvm")


@dataclass(frozen=True, slots=True)
class Backend:
    """A program that speaks the VMM's protocol on descriptor 3."""

    name: Literal["kvm", "emulator"]
    command: tuple[str, ...]

    def with_gdb(self, gdb: Gdb) -> Backend:
        """Return the same program with a stub for gdb; for debug builds only.

        :raises HostError: it is not the emulator.
        """
        if self.name != "emulator":
            raise HostError("gdb is served by the emulator only", hint="--backend emulator")
        return Backend(self.name, (*self.command, *gdb.arguments()))


def choose_backend(name: BackendName = "auto") -> Backend:
    """Return the backend asked for; ``auto`` takes KVM if this process may open it.

    :raises KvmError: KVM was asked for and cannot be used, or the VMM was not built.
    """
    if name == "emulator" or (name == "auto" and not os.access(_DEVICE, os.R_OK | os.W_OK)):
        return Backend("emulator", (sys.executable, "-I", "-m", "hypervisor_agent.enclave.emulator"))
    if not os.access(_DEVICE, os.R_OK | os.W_OK):
        raise KvmError("/dev/kvm cannot be opened", hint="join the group kvm, or use the emulator")
    vmm = Path(str(files("hypervisor_agent.native") / "cafe-vmm"))
    if not os.access(vmm, os.X_OK):
        raise KvmError("the VMM was not built", hint="run: make native")
    return Backend("kvm", (str(vmm),))
