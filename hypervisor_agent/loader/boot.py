"""The boot page: what the runtime is told at entry, with random bytes that no other enclave gets."""

from __future__ import annotations

import os
import re
from functools import cache
from pathlib import Path
from typing import Final

from cafe_lib.image.manifest import Manifest
from hypervisor_agent.abi import (
    ABI_VERSION,
    BOOT,
    BOOT_MAGIC,
    BOOT_SEED_BYTES,
    BOOT_SEED_OFFSET,
    BOOT_VCPU,
    PAGE,
)
from hypervisor_agent.loader.layout import REGIONS, Layout

SPIN_MICROSECONDS: Final = 50
"""How long an enclave polls before it sleeps: about the cost of a wake-up on another core."""
_USUAL_MHZ: Final = 3000


@cache
def spin_cycles() -> int:
    """Return the spin time in TSC cycles, from the speed the kernel reports."""
    found = re.search(r"^cpu MHz\s*:\s*([0-9]+)", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    return SPIN_MICROSECONDS * (int(found[1]) if found else _USUAL_MHZ)


def write_boot_page(page: memoryview, layout: Layout, manifest: Manifest) -> None:
    """Write ``struct cafe_boot`` and wipe the rest; the seed goes from the kernel straight into ``page``."""
    heap, counts = layout["heap"], (REGIONS, layout.vcpu_count)
    sizes = (manifest.slot_count, manifest.slot_bytes, manifest.bulk_bytes)
    places = (layout.image_base, heap.address, heap.size, layout["channel"].address, layout.channel_stride)
    rest = (layout["monitor"].address, spin_cycles(), manifest.isa, bytes(BOOT_SEED_BYTES))
    page[:PAGE] = bytes(PAGE)
    BOOT.pack_into(page, 0, BOOT_MAGIC, ABI_VERSION, *sizes, *places, *counts, *rest)
    for vcpu in range(layout.vcpu_count):
        own = (layout.of_vcpu("arena", vcpu).address, layout.thread_pointer(vcpu))
        BOOT_VCPU.pack_into(page, BOOT.size + vcpu * BOOT_VCPU.size, *own)
    source = os.open("/dev/urandom", os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.readv(source, [page[BOOT_SEED_OFFSET : BOOT_SEED_OFFSET + BOOT_SEED_BYTES]])
    finally:
        os.close(source)
