"""What the loader takes and refuses: chunks, headers, relocations."""

from __future__ import annotations

import os
import struct
import threading
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from cafe_lib.errors import HostError, ImageError, MalformedError, SignatureError
from cafe_lib.image.confidential import Confidential
from cafe_lib.wire.limits import CHUNK_BYTES
from hypervisor_agent.loader.load import ImageLoader

if TYPE_CHECKING:
    from conftest import Probe

# Offsets in struct cafe_image_header.
HEADER = {
    name: 16 + 8 * index
    for index, name in enumerate(
        (
            *("code_offset", "code_bytes", "rodata_offset", "rodata_bytes", "data_offset", "data_bytes"),
            *("bss_bytes", "reloc_offset", "reloc_count", "export_offset", "export_count"),
            *("function_offset", "entry_offset", "tls_offset", "tls_file_bytes", "tls_bytes", "tls_align"),
        )
    )
}
TOP = (1 << 64) - 1

BAD_HEADERS: dict[str, tuple[str, int]] = {
    "code over the header": ("code_offset", 0),
    "code wraps": ("code_bytes", TOP & ~4095),
    "areas overlap": ("rodata_offset", 4096),
    "read-only area past the end": ("rodata_bytes", 1 << 30),
    "data before code": ("data_offset", 0),
    "data past the end": ("data_bytes", 1 << 20),
    "data wraps": ("data_bytes", TOP - 0x2FFF),
    "bss of 2^63": ("bss_bytes", 1 << 63),
    "entry in the header": ("entry_offset", 0),
    "entry in data": ("entry_offset", 0x3000),
    "entry past the end": ("entry_offset", 1 << 40),
    "relocations outside": ("reloc_offset", 1 << 30),
    "too many relocations": ("reloc_count", 1 << 62),
    "exports outside": ("export_offset", 1 << 30),
    "no exports": ("export_count", 0),
    "tls file longer than tls": ("tls_file_bytes", 1),
    "tls alignment 3": ("tls_align", 3),
    "tls alignment 2^40": ("tls_align", 1 << 40),
    "endless tls": ("tls_bytes", 1 << 40),
}


@pytest.mark.case("C03")
@pytest.mark.parametrize("name", BAD_HEADERS)
def test_bad_header(probe: Probe, name: str) -> None:
    field, value = BAD_HEADERS[name]
    image = bytearray(probe.plain)
    struct.pack_into("<Q", image, HEADER[field], value)
    with pytest.raises(ImageError):
        probe.plan(bytes(image))


BAD_RELOCATIONS: dict[str, tuple[int, ...]] = {
    "in the header": (0, 0x2000, 0x3000),
    "in code": (0x1000, 0x2000, 0x3000),
    "from code into read-only": (0x1FFC, 0x2010, 0x3000),
    "past the end": (0x2000, 0x2010, 0xFFFFFFF8),
    "over the end": (0x2000, 0x2010, 0x340C),
    "unsorted": (0x2010, 0x2000, 0x3000),
    "twice": (0x2000, 0x2000, 0x3000),
    "overlapping": (0x2000, 0x2004, 0x3000),
    "across two areas": (0x2000, 0x2FFC, 0x3008),
}


@pytest.mark.case("C02")
@pytest.mark.parametrize("name", BAD_RELOCATIONS)
def test_bad_relocations(probe: Probe, name: str) -> None:
    image = bytearray(probe.plain)
    struct.pack_into("<3I", image, probe.symbols["relocs"], *BAD_RELOCATIONS[name])
    with pytest.raises(ImageError):
        probe.plan(bytes(image))


@pytest.mark.case("C01")
def test_flipped_bit_in_any_chunk(probe: Probe) -> None:
    image = probe.plain + bytes(2 * CHUNK_BYTES)
    for bad in range(3):
        loader, ciphertexts = probe.loader(image)
        for index, ciphertext in enumerate(ciphertexts):
            data = bytearray(ciphertext)
            if index == bad:
                data[len(data) // 2] ^= 1
                with pytest.raises(SignatureError):
                    loader.take_chunk(index, memoryview(data))
                break
            loader.take_chunk(index, memoryview(data))
        with pytest.raises(MalformedError):
            loader.finish()
        loader.discard()


@pytest.mark.case("C01")
def test_wrong_key_or_tag(probe: Probe) -> None:
    confidential, ciphertexts = probe.sealed(probe.plain)
    for field in ("keys", "tags"):
        value = bytearray(getattr(confidential, field)[0])
        value[0] ^= 1
        changed = {"keys": confidential.keys, "tags": confidential.tags, field: (bytes(value),)}
        loader = ImageLoader(probe.manifest(probe.plain), Confidential(bytes(32), **changed))
        with pytest.raises(SignatureError):
            loader.take_chunk(0, ciphertexts[0])
        loader.discard()


@pytest.mark.case("C06")
def test_chunks_out_of_order_twice_missing_or_of_another_length(probe: Probe) -> None:
    image = probe.plain.ljust(CHUNK_BYTES + 4096, b"\0")
    loader, (first, second) = probe.loader(image)
    for index, data in ((1, second), (-1, first), (0, first[:-1]), (0, first + b"\0"), (2, second)):
        with pytest.raises(MalformedError):
            loader.take_chunk(index, data)
    loader.take_chunk(0, first)
    for index, data in ((0, first), (1, first), (2, second)):
        with pytest.raises(MalformedError):
            loader.take_chunk(index, data)
    with pytest.raises(MalformedError):
        loader.finish()
    loader.discard()


def test_as_many_keys_as_chunks(probe: Probe) -> None:
    confidential, _ = probe.sealed(probe.plain)
    two = Confidential(bytes(32), confidential.keys * 2, confidential.tags * 2)
    with pytest.raises(MalformedError):
        ImageLoader(probe.manifest(probe.plain), two)


def _descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


@pytest.mark.case("C07")
def test_ciphertext_changed_meanwhile_is_refused_or_right(probe: Probe) -> None:
    """Another thread flips a byte of the received buffer all the time."""
    plain = os.urandom(CHUNK_BYTES)
    confidential, (ciphertext,) = probe.sealed(plain)
    manifest = probe.manifest(plain)
    shared = bytearray(ciphertext)
    stop = threading.Event()

    def flip() -> None:
        while not stop.is_set():
            shared[CHUNK_BYTES // 2] ^= 1

    thread = threading.Thread(target=flip)
    thread.start()
    seen = set()
    try:
        for _ in range(150):
            loader = ImageLoader(manifest, confidential)
            try:
                loader.take_chunk(0, memoryview(shared))
                seen.add(os.pread(loader._memory.fd, CHUNK_BYTES, 0) == plain)
            except SignatureError:
                seen.add(None)
                assert not any(os.pread(loader._memory.fd, CHUNK_BYTES, 0))
            loader.discard()
    finally:
        stop.set()
        thread.join()
    assert False not in seen


def test_discard_leaves_nothing(probe: Probe) -> None:
    before = _descriptors()
    loader, ciphertexts = probe.loader()
    loader.take_chunk(0, ciphertexts[0])
    copy = os.dup(loader._memory.fd)
    loader.discard()
    loader.discard()
    assert not any(os.pread(copy, 1 << 20, 0))
    os.close(copy)
    with pytest.raises((HostError, MalformedError)):
        loader.take_chunk(1, ciphertexts[0])
    assert _descriptors() == before


def test_discard_after_finish_does_not_touch_the_plan(probe: Probe) -> None:
    loader, ciphertexts = probe.loader()
    loader.take_chunk(0, ciphertexts[0])
    plan = loader.finish()
    loader.discard()
    assert os.fstat(plan.memory.fd).st_size == plan.config.memory_bytes
    plan.memory.wipe()


@pytest.mark.parametrize("flip", range(0, 160, 8))
def test_header_bits(probe: Probe, flip: int) -> None:
    """Every byte of the header with its top bit flipped: an error, or still a loadable image."""
    image = bytearray(probe.plain)
    for bit in range(8):
        image[flip + bit] ^= 0x80
        with suppress(ImageError):
            plan = probe.plan(bytes(image))
            plan.memory.wipe()
            code = next(region for region in plan.regions if region.name == "code")
            assert code.address <= plan.config.rip < code.end
        image[flip + bit] ^= 0x80
