"""Cuts a flat image in chunks, encrypts them, signs the manifest and writes the package file."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from cafe_lib.image.confidential import (
    MAX_BOUNDARY_CHARACTERS,
    Confidential,
    confidential_digest,
    derive_salt,
    encrypt_chunk,
)
from cafe_lib.image.flat import ABI_VERSION, FlatImage
from cafe_lib.image.manifest import Manifest, secret_binary_id, sign_manifest
from cafe_lib.image.package import WRAPPED, encode_head, wrap_confidential, write_package
from cafe_lib.interface.expression import format_expression
from cafe_lib.interface.model import Function, Interface, Param
from cafe_lib.toolchain.keys import PublisherIdentity
from cafe_lib.toolchain.project import Project
from cafe_lib.wire.limits import CHUNK_BYTES


@dataclass(frozen=True, slots=True)
class Release:
    """What the package says beside the image: ``isa`` is ``enum cafe_isa``."""

    project: Project
    interface: Interface
    isa: int


def describe_boundary(interface: Interface) -> str:
    """Return a line per secret function and callback: what of each parameter crosses, and how much."""
    lines = [_describe(function) for function in interface.functions]
    lines += [f"callback {_describe(function)}" for function in interface.callbacks]
    return "\n".join(lines)[:MAX_BOUNDARY_CHARACTERS]


def _describe(function: Function) -> str:
    parts = [
        _describe_param(one.name if one is param else f"{param.name}->{one.name}", one)
        for param in function.params
        for one in (param, *param.fields)
    ]
    result = "void" if function.result is None else function.result.spelling
    return f"{function.display}({'; '.join(parts)}) -> {result}"


def _describe_param(name: str, param: Param) -> str:
    count = "" if param.count is None else f" {format_expression(param.count)}"
    return f"{name or '?'}: {param.carry}{count} {param.shape.spelling}"


def write_release(path: Path, image: FlatImage, release: Release, publisher: PublisherIdentity) -> Manifest:
    """Write the package of kind 1 for ``image``; the same input gives the same bytes.

    :raises LimitError: the image is too large for a package.
    """
    plain = memoryview(image.plaintext)
    pieces = [
        encrypt_chunk(publisher.secret, plain[start : start + CHUNK_BYTES])
        for start in range(0, len(plain), CHUNK_BYTES)
    ]
    keys = tuple(key for _, key, _, _ in pieces)
    tags = tuple(tag for _, _, tag, _ in pieces)
    salt = derive_salt(publisher.secret, keys)
    confidential = Confidential(salt, keys, tags, describe_boundary(release.interface)).encode()
    manifest = _manifest(image, release, publisher, tuple(name for name, _, _, _ in pieces), confidential)
    cose = sign_manifest(publisher.signing_key, manifest)
    blob = wrap_confidential(publisher.secret, secret_binary_id(cose), confidential)
    write_package(path, encode_head(WRAPPED, cose, blob), (ciphertext for _, _, _, ciphertext in pieces))
    return manifest


def _manifest(
    image: FlatImage,
    release: Release,
    publisher: PublisherIdentity,
    names: tuple[bytes, ...],
    confidential: bytes,
) -> Manifest:
    file = release.project.file
    return Manifest(
        name=file.name,
        version=file.version,
        publisher=publisher.id,
        build_mode=release.project.build_mode,
        abi_version=ABI_VERSION,
        isa=release.isa,
        interface_digest=release.interface.digest(),
        stack_bytes=file.memory.stack,
        heap_bytes=file.memory.heap,
        slot_count=file.memory.slots,
        slot_bytes=file.memory.slot,
        vcpu_count=file.vcpus,
        bulk_bytes=file.memory.bulk,
        deadline_ms=file.deadline_ms,
        image_bytes=len(image.plaintext),
        chunk_names=names,
        confidential_digest=confidential_digest(confidential),
    )
