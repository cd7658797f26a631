"""`cafe inspect`: what a package contains; with the publisher's identity also what is encrypted."""

from __future__ import annotations

import mmap
from pathlib import Path
from typing import Annotated, Final

import typer

from cafe_lib.cli.console import JsonOption, print_result
from cafe_lib.errors import ImageError, MalformedError, NotFoundError
from cafe_lib.image.confidential import Confidential, decrypt_chunk_into, parse_confidential
from cafe_lib.image.manifest import ISA_NAMES, PRODUCTION, verify_manifest
from cafe_lib.image.package import WRAPPED, Package, open_package, unwrap_confidential
from cafe_lib.toolchain.keys import PublisherIdentity, load_publisher
from cafe_lib.toolchain.record import NATIVE_MARK
from cafe_lib.wire.limits import CHUNK_BYTES

_ELF: Final = b"\x7fELF"
_ARCHIVE: Final = b"!<arch>\n"


def inspect(
    file: Annotated[Path, typer.Argument(help="A package, NAME.cafe, or a public library.")],
    publisher: Annotated[Path | None, typer.Option(help="Directory of the publisher's identity.")] = None,
    *,
    as_json: JsonOption = False,
) -> None:
    """Show what a package contains; with --publisher, check its signature and look inside."""
    if is_library(file):
        print_result(describe_library(file), as_json=as_json)
        return
    try:
        package = open_package(file)
    except OSError as error:
        raise NotFoundError(f"{file}: {error.strerror}") from error
    for _ in package.chunks():
        pass  # each is checked against its name
    result = describe_package(package)
    if publisher is not None:
        identity = load_publisher(publisher)
        verify_manifest(package.cose, identity.public_key)
        result["signature"] = "verified"
        if package.kind == WRAPPED:
            confidential = open_own(package, identity)
            result.update(describe_image(decrypt_image(package, confidential)))
            result["boundary"] = confidential.boundary.splitlines()
    print_result(result, as_json=as_json)


def is_library(file: Path) -> bool:
    """Say whether a file is a library rather than a package."""
    try:
        with file.open("rb") as opened:
            return opened.read(len(_ARCHIVE)).startswith((_ELF, _ARCHIVE))
    except OSError as error:
        raise NotFoundError(f"{file}: {error.strerror}") from error


def describe_library(file: Path) -> dict[str, object]:
    """Say whether a public library is a native one, which protects nothing."""
    with file.open("rb") as opened, mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ) as data:
        native = data.find(NATIVE_MARK) >= 0
        ours = native or data.find(b"cafe_last_error") >= 0
    if not ours:
        raise MalformedError(f"{file} is neither a package nor a library that `cafe build` made")
    return {
        "library": file.name,
        "build_mode": "native" if native else "debug or production",
        "protected": not native,
    }


def describe_package(package: Package) -> dict[str, object]:
    """Return what anyone can read: the manifest, and the package's form."""
    manifest = package.manifest
    return {
        "name": manifest.name,
        "version": manifest.version,
        "secret_binary_id": package.secret_binary_id.hex(),
        "publisher": manifest.publisher.hex(),
        "signature": "not checked",
        "confidential_part": "wrapped for its publisher" if package.kind == WRAPPED else "sealed to an SBS",
        "build_mode": "production" if manifest.build_mode == PRODUCTION else "debug",
        "abi_version": manifest.abi_version,
        "isa": next(name for name, number in ISA_NAMES.items() if number == manifest.isa),
        "interface_digest": manifest.interface_digest.hex(),
        "stack_bytes": manifest.stack_bytes,
        "heap_bytes": manifest.heap_bytes,
        "slots": manifest.slot_count,
        "slot_bytes": manifest.slot_bytes,
        "vcpus": manifest.vcpu_count,
        "bulk_bytes": manifest.bulk_bytes,
        "deadline_ms": manifest.deadline_ms,
        "image_bytes": manifest.image_bytes,
        "chunks": len(manifest.chunk_names),
        "package_bytes": package.head_bytes + manifest.image_bytes,
    }


def open_own(package: Package, identity: PublisherIdentity) -> Confidential:
    """Return the confidential part of the publisher's own package.

    :raises VerificationError: not this publisher's package, or changed.
    """
    return parse_confidential(unwrap_confidential(identity.secret, package.cose, package.blob))


def decrypt_image(package: Package, confidential: Confidential) -> memoryview:
    """Return the plaintext image.

    :raises VerificationError: a chunk was changed.
    :raises ImageError: chunks and keys don't match.
    """
    if len(confidential.keys) != len(package.manifest.chunk_names):
        raise ImageError("the confidential part does not have a key per chunk")
    image = memoryview(bytearray(package.manifest.image_bytes))
    for index, chunk in enumerate(package.chunks()):
        start = index * CHUNK_BYTES
        target = image[start : start + len(chunk)]
        decrypt_chunk_into(confidential.keys[index], confidential.tags[index], chunk, target)
    return image


def describe_image(image: memoryview) -> dict[str, object]:
    """Return what only the publisher can read: section sizes and exports.

    :raises ImageError: the image is not valid.
    """
    from cafe_lib.image.flat import image_table, parse_image_header  # noqa: PLC0415 - numpy: slow to import

    header = parse_image_header(image)
    entries = image_table(image, header.export_offset, header.export_count)
    functions = image_table(image, header.function_offset, header.export_count)
    return {
        "code_bytes": header.code_bytes,
        "rodata_bytes": header.rodata_bytes,
        "data_bytes": header.data_bytes,
        "bss_bytes": header.bss_bytes,
        "tls_bytes": header.tls_bytes,
        "relocations": header.reloc_count,
        "exports": [f"{entry:#x}->{function:#x}" for entry, function in zip(entries, functions, strict=True)],
    }
