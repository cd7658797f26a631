"""Small valid images, manifests and packages to be spoilt by tests."""

from __future__ import annotations

import struct
from dataclasses import replace
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from cafe_lib.image.confidential import Confidential, confidential_digest, derive_salt, encrypt_chunk
from cafe_lib.image.flat import ImageHeader
from cafe_lib.image.manifest import Manifest, publisher_id, secret_binary_id, sign_manifest
from cafe_lib.image.package import WRAPPED, encode_head, wrap_confidential
from cafe_lib.toolchain.keys import PublisherIdentity
from cafe_lib.wire.limits import CHUNK_BYTES

IDENTITY = PublisherIdentity(Ed25519PrivateKey.from_private_bytes(bytes(range(32))), bytes(range(100, 132)))
OTHER = PublisherIdentity(Ed25519PrivateKey.from_private_bytes(bytes(range(1, 33))), bytes(range(50, 82)))

# code 4096..12288, rodata 12288..20480, data 20480..20600
HEADER = ImageHeader(
    code_offset=4096,
    code_bytes=8192,
    rodata_offset=12288,
    rodata_bytes=8192,
    data_offset=20480,
    data_bytes=120,
    bss_bytes=5000,
    reloc_offset=12400,
    reloc_count=3,
    export_offset=12288,
    export_count=2,
    function_offset=12296,
    entry_offset=4100,
    tls_offset=13000,
    tls_file_bytes=8,
    tls_bytes=24,
    tls_align=16,
)
RELOCATIONS = (13000, 13008, 20592)


def image(
    header: ImageHeader = HEADER,
    relocations: tuple[int, ...] = RELOCATIONS,
    exports: tuple[int, ...] = (4096, 12287),
    functions: tuple[int, ...] = (5000, 6000),
) -> bytearray:
    """Make an image whose tables lie where HEADER says, whatever ``header`` says."""
    plain = bytearray(HEADER.file_bytes)
    plain[:4096] = header.pack()
    struct.pack_into(f"<{len(relocations)}I", plain, HEADER.reloc_offset, *relocations)
    struct.pack_into(f"<{len(exports)}I", plain, HEADER.export_offset, *exports)
    struct.pack_into(f"<{len(functions)}I", plain, HEADER.function_offset, *functions)
    return plain


def spoilt(**changes: int) -> bytearray:
    """Make the image with header fields changed."""
    return image(replace(HEADER, **changes))


def manifest(
    plain: bytes | bytearray, identity: PublisherIdentity = IDENTITY
) -> tuple[Manifest, bytes, list[bytes]]:
    """Make manifest, confidential part and ciphertext chunks for a plaintext."""
    starts = range(0, len(plain), CHUNK_BYTES)
    parts = [encrypt_chunk(identity.secret, bytes(plain[at : at + CHUNK_BYTES])) for at in starts]
    keys = tuple(part[1] for part in parts)
    confidential = Confidential(
        derive_salt(identity.secret, keys), keys, tuple(part[2] for part in parts)
    ).encode()
    made = Manifest(
        name="sample",
        version="1.2.3",
        publisher=publisher_id(identity.public_key),
        build_mode=1,
        abi_version=2,
        isa=1,
        interface_digest=bytes(range(32)),
        stack_bytes=65536,
        heap_bytes=1 << 20,
        slot_count=4,
        slot_bytes=16384,
        vcpu_count=1,
        bulk_bytes=0,
        deadline_ms=1000,
        image_bytes=len(plain),
        chunk_names=tuple(part[0] for part in parts),
        confidential_digest=confidential_digest(confidential),
    )
    return made, confidential, [part[3] for part in parts]


def package(plain: bytes | bytearray, path: Path, identity: PublisherIdentity = IDENTITY) -> bytes:
    """Write a package of kind 1 and return its bytes."""
    made, confidential, chunks = manifest(plain, identity)
    cose = sign_manifest(identity.signing_key, made)
    blob = wrap_confidential(identity.secret, secret_binary_id(cose), confidential)
    data = encode_head(WRAPPED, cose, blob) + b"".join(chunks)
    path.write_bytes(data)
    return data
