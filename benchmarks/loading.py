"""load_100MiB: from received records to memory that is ready to run."""

from __future__ import annotations

import os
import secrets
import time

from figures import Figure, median_figure

from cafe_lib.image.confidential import Confidential, confidential_digest, derive_salt, encrypt_chunk
from cafe_lib.image.flat import ImageHeader
from cafe_lib.image.manifest import ABI_VERSION, PRODUCTION, Manifest
from cafe_lib.wire.keys import StreamContext
from cafe_lib.wire.limits import CHUNK_BYTES
from cafe_lib.wire.records import CHUNK, RecordReader, RecordWriter
from hypervisor_agent.loader.load import ImageLoader

_PAGE, _SIZE = 4096, 100 << 20
_PIECE = 1 << 20  # what one read of the network gives


def _image() -> bytes:
    """Return a sound image of 100 MiB whose contents are random bytes."""
    code, rodata = _PAGE, _SIZE - 2 * _PAGE
    header = ImageHeader(
        code_offset=_PAGE,
        code_bytes=code,
        rodata_offset=2 * _PAGE,
        rodata_bytes=rodata,
        data_offset=2 * _PAGE + rodata,
        data_bytes=0,
        bss_bytes=0,
        reloc_offset=2 * _PAGE,
        reloc_count=0,
        export_offset=2 * _PAGE,
        export_count=1,
        function_offset=2 * _PAGE + 4,
        entry_offset=_PAGE,
        tls_offset=2 * _PAGE,
        tls_file_bytes=0,
        tls_bytes=0,
        tls_align=1,
    )
    tables = _PAGE.to_bytes(4, "little") * 2
    return header.pack() + secrets.token_bytes(code) + tables + secrets.token_bytes(rodata - len(tables))


def _packed() -> tuple[Manifest, Confidential, list[bytes]]:
    secret, image = secrets.token_bytes(32), memoryview(_image())
    parts = [encrypt_chunk(secret, image[at : at + CHUNK_BYTES]) for at in range(0, _SIZE, CHUNK_BYTES)]
    names, keys, tags, chunks = zip(*parts, strict=True)
    confidential = Confidential(derive_salt(secret, keys), keys, tags)
    manifest = Manifest(
        name="big",
        version="1",
        publisher=secrets.token_bytes(32),
        build_mode=PRODUCTION,
        abi_version=ABI_VERSION,
        isa=1,
        interface_digest=secrets.token_bytes(32),
        stack_bytes=64 << 10,
        heap_bytes=64 << 10,
        slot_count=1,
        slot_bytes=_PAGE,
        vcpu_count=1,
        bulk_bytes=0,
        deadline_ms=1000,
        image_bytes=_SIZE,
        chunk_names=names,
        confidential_digest=confidential_digest(confidential.encode()),
    )
    return manifest, confidential, list(chunks)


def measure_loading(runs: int) -> list[Figure]:
    """Verify, decrypt and place 100 MiB; the baseline is one plain copy of as many bytes."""
    manifest, confidential, chunks = _packed()
    context = StreamContext(os.urandom(32), os.urandom(32), os.urandom(32))
    writer = RecordWriter(context.keys(os.urandom(32)))
    received = bytearray(writer.begin() + writer.grant(b"grant"))
    for chunk in chunks:
        header, tag = writer.chunk(chunk)
        received += header + chunk + tag
    received += writer.end()
    stream, pairs = memoryview(bytes(received)), []
    for _ in range(runs):
        start = time.perf_counter()
        reader, loader, index = RecordReader(context), ImageLoader(manifest, confidential), 0
        for at in range(0, len(stream), _PIECE):
            for record in reader.feed(stream[at : at + _PIECE]):
                if record.type == CHUNK:
                    loader.take_chunk(index, record.body)
                    index += 1
        reader.finish()
        plan = loader.finish()
        took = time.perf_counter() - start
        plan.memory.wipe()
        start = time.perf_counter()
        bytearray(stream[:_SIZE])
        pairs.append((_SIZE / took / 1e9, _SIZE / (time.perf_counter() - start) / 1e9))
    note = "verify, decrypt, relocate, map; higher is better"
    what = "one copy into fresh memory"
    return [median_figure("load_100MiB", "GB/s", pairs, what, backend="none", note=note)]
