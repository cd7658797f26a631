"""From received ciphertext to memory that a VMM can run: decrypt, check, relocate, map, seal."""

from __future__ import annotations

from cafe_lib.errors import MalformedError
from cafe_lib.image.confidential import Confidential, decrypt_chunk_into
from cafe_lib.image.flat import parse_image_header
from cafe_lib.image.manifest import DEBUG, Manifest
from cafe_lib.wire.limits import CHUNK_BYTES
from hypervisor_agent.abi import PAGE
from hypervisor_agent.loader import supervisor
from hypervisor_agent.loader.boot import write_boot_page
from hypervisor_agent.loader.config import vmm_config
from hypervisor_agent.loader.layout import Layout, lay_out
from hypervisor_agent.loader.memory import EnclaveMemory, PrivateBuffer
from hypervisor_agent.loader.pages import PageTables
from hypervisor_agent.loader.relocate import relocate
from hypervisor_agent.plan import EnclavePlan


class ImageLoader:
    """Takes the chunks of one image in order and makes an :class:`EnclavePlan` of them.

    Nothing is executed by it. After any error, and when the plan is not wanted, call :meth:`discard`.
    """

    def __init__(self, manifest: Manifest, confidential: Confidential) -> None:
        """Isolate the memory.

        :param manifest: verified; ``confidential`` matches its digest.
        :raises MalformedError: another number of keys than chunks.
        :raises HostError: no memory.
        """
        if len(confidential.keys) != len(manifest.chunk_names):
            raise MalformedError("as many chunk keys as chunks are needed")
        self._manifest = manifest
        self._confidential = confidential
        self._next = 0
        self._handed_over = False
        self._received, self._plain = PrivateBuffer(CHUNK_BYTES), PrivateBuffer(CHUNK_BYTES)
        self._memory = EnclaveMemory(manifest.image_bytes)

    def take_chunk(self, index: int, ciphertext: bytes | memoryview) -> None:
        """Decrypt one chunk into its place.

        A buffer that somebody else might change is copied first: what is authenticated is what is used.

        :raises MalformedError: not the next chunk, or another length than the manifest's.
        :raises SignatureError: the chunk is not genuine.
        """
        if index != self._next or index >= len(self._manifest.chunk_names):
            raise MalformedError(f"chunk {index} is not the next one")
        size = self._manifest.chunk_bytes(index)
        if len(ciphertext) != size:
            raise MalformedError(f"chunk {index} has {len(ciphertext)} bytes, not {size}")
        source = ciphertext
        if not isinstance(ciphertext, bytes) and not isinstance(ciphertext.obj, bytes):
            source = self._received.first(size)
            source[:] = ciphertext
        key, tag = self._confidential.keys[index], self._confidential.tags[index]
        with self._plain.first(size) as plain:
            decrypt_chunk_into(key, tag, source, plain)
            self._memory.write(index * CHUNK_BYTES, plain)
        self._next += 1

    def finish(self) -> EnclavePlan:
        """Check and relocate the image, build its page tables, seal the memory and unmap it here.

        :raises MalformedError: chunks are missing.
        :raises ImageError: the image is not sound.
        :raises HostError: no memory.
        """
        if self._next != len(self._manifest.chunk_names):
            raise MalformedError(f"{len(self._manifest.chunk_names) - self._next} chunks are missing")
        self._plain.wipe()
        plan = plan_enclave(self._memory, self._manifest)
        self._handed_over = True
        return plan

    def discard(self) -> None:
        """Wipe and close everything that was not handed over in a plan; idempotent."""
        self._plain.wipe()
        if not self._handed_over:
            self._memory.wipe()


def plan_enclave(memory: EnclaveMemory, manifest: Manifest) -> EnclavePlan:
    """Turn memory that holds the plaintext into a plan; see :meth:`ImageLoader.finish`."""
    with memory.map() as pages:
        with pages[: manifest.image_bytes] as image:
            header = parse_image_header(image)
            layout = lay_out(header, manifest)
            relocate(image, header, layout.image_base)
        with pages[:PAGE] as page:
            write_boot_page(page, layout, manifest)
    memory.unmap()
    memory_bytes = _write_tables(memory, layout)
    config = vmm_config(header, manifest, layout, memory_bytes)
    return EnclavePlan(
        memory,
        config,
        manifest.bulk_bytes,
        layout.image_base,
        header.span_bytes,
        tuple(layout.regions.values()),
        debug=manifest.build_mode == DEBUG,
    )


def _write_tables(memory: EnclaveMemory, layout: Layout) -> int:
    """Write page tables and supervisor pages; return the memory's final size."""
    pages = PageTables(layout.tables_gpa)
    pages.add(layout.regions.values())
    tables = pages.encode()
    memory.seal(layout.tables_gpa + len(tables))
    memory.write(layout.tables_gpa, tables)
    handlers = layout[supervisor.HANDLERS]
    memory.write(handlers.physical, supervisor.handlers_page())
    for vcpu in range(layout.vcpu_count):
        table = layout.of_vcpu(supervisor.TABLES, vcpu)
        stack_top = layout.of_vcpu(supervisor.FAULT_STACK, vcpu).address + supervisor.STACK_TOP
        memory.write(table.physical, supervisor.tables_page(table.address, handlers.address, stack_top))
    return layout.tables_gpa + len(tables)
