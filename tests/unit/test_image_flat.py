"""The header and tables of a flat image: what a loader must refuse before it maps anything."""

from __future__ import annotations

import struct
from dataclasses import fields

import pytest
from hypothesis import given
from hypothesis import strategies as st
from image_samples import HEADER, RELOCATIONS, image, spoilt

from cafe_lib.errors import ImageError
from cafe_lib.image.flat import ImageHeader, image_table, parse_image_header

FIELDS = [field.name for field in fields(ImageHeader)]


def check(data: bytes | bytearray) -> ImageHeader:
    return parse_image_header(memoryview(data))


def test_a_valid_image_is_accepted() -> None:
    data = image()
    assert check(data) == HEADER
    assert HEADER.span_bytes == 28672
    assert list(image_table(memoryview(data), HEADER.reloc_offset, 3)) == list(RELOCATIONS)


def test_an_image_without_data_tls_and_relocations_is_accepted() -> None:
    data = spoilt(data_bytes=0, bss_bytes=0, reloc_count=0, tls_bytes=0, tls_file_bytes=0, tls_align=1)
    assert check(data[: HEADER.data_offset]).span_bytes == HEADER.data_offset


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"", id="empty"),
        pytest.param(bytes(4095), id="shorter than a header"),
        pytest.param(bytes(8192), id="zeros"),
        pytest.param(b"\x7fELF" + bytes(image())[4:], id="an ELF file"),
        pytest.param(bytes(image())[:8] + b"\1" + bytes(image())[9:], id="another ABI"),
        pytest.param(bytes(image())[:12] + b"\1" + bytes(image())[13:], id="reserved word"),
        pytest.param(bytes(image())[:4095] + b"\1" + bytes(image())[4096:], id="header padding"),
        pytest.param(bytes(image()) + b"\0", id="trailing byte"),
        pytest.param(bytes(image())[:-1], id="cut short"),
    ],
)
@pytest.mark.case("C03")
def test_what_is_no_image_is_refused(data: bytes) -> None:
    with pytest.raises(ImageError):
        check(data)


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"code_offset": 0}, id="code over the header"),
        pytest.param({"code_offset": 8192}, id="gap before code"),
        pytest.param({"code_bytes": 0}, id="no code"),
        pytest.param({"code_bytes": 8191}, id="code not whole pages"),
        pytest.param({"code_bytes": 12288}, id="code overlaps constants"),
        pytest.param({"rodata_offset": 8192}, id="constants overlap code"),
        pytest.param({"rodata_bytes": 0}, id="no constants"),
        pytest.param({"rodata_bytes": 12288}, id="constants overlap data"),
        pytest.param({"data_offset": 4096}, id="data over code: W+X"),
        pytest.param({"data_offset": 24576}, id="gap before data"),
        pytest.param({"data_bytes": 121}, id="data beyond the end"),
        pytest.param({"bss_bytes": 1 << 32}, id="larger than 4 GiB"),
        pytest.param({"bss_bytes": 2**64 - 1}, id="bss wraps"),
        pytest.param({"code_offset": 2**64 - 4096, "code_bytes": 12288}, id="code wraps"),
        pytest.param({"rodata_bytes": 2**64 - 4096}, id="constants wrap"),
        pytest.param({"entry_offset": 4095}, id="entry in the header"),
        pytest.param({"entry_offset": 12288}, id="entry in constants"),
        pytest.param({"entry_offset": 2**64 - 1}, id="entry nowhere"),
        pytest.param({"export_count": 0}, id="no exports"),
        pytest.param({"export_count": 4097}, id="too many exports"),
        pytest.param({"export_count": 2**62}, id="export count wraps"),
        pytest.param({"export_offset": 12287}, id="exports unaligned and in code"),
        pytest.param({"export_offset": 12290}, id="exports unaligned"),
        pytest.param({"export_offset": 20476}, id="exports into data"),
        pytest.param({"export_offset": 12304}, id="exports are zero"),
        pytest.param({"function_offset": 4096}, id="functions in code"),
        pytest.param({"function_offset": 2**64 - 8}, id="functions wrap"),
        pytest.param({"tls_align": 0}, id="tls alignment 0"),
        pytest.param({"tls_align": 24}, id="tls alignment 24"),
        pytest.param({"tls_align": 8192}, id="tls alignment beyond a page"),
        pytest.param({"tls_bytes": 7}, id="tls smaller than its contents"),
        pytest.param({"tls_bytes": (1 << 20) + 1}, id="tls too large"),
        pytest.param({"tls_offset": 20476}, id="tls contents into data"),
        pytest.param({"tls_offset": 4096}, id="tls contents in code"),
        pytest.param({"tls_offset": 2**64 - 4}, id="tls contents wrap"),
    ],
)
@pytest.mark.case("C03")
def test_areas_tables_and_entries_must_be_where_they_belong(changes: dict[str, int]) -> None:
    with pytest.raises(ImageError):
        check(spoilt(**changes))


@pytest.mark.parametrize("value", [0, 4095, 12288, 20480, 2**32 - 1])
@pytest.mark.parametrize("which", ["exports", "functions"])
@pytest.mark.case("C03")
def test_exports_outside_the_code_are_refused(which: str, value: int) -> None:
    tables = {"exports": (5000, value), "functions": (5000, 6000)}
    if which == "functions":
        tables = {"exports": (5000, 6000), "functions": (value, 5000)}
    with pytest.raises(ImageError):
        check(image(**tables))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "relocations",
    [
        pytest.param((0, 13008, 20592), id="in the header"),
        pytest.param((5000, 13008, 20592), id="in code"),
        pytest.param((12284, 13008, 20592), id="from code into constants"),
        pytest.param((13000, 20476, 20592), id="from constants into data"),
        pytest.param((13000, 13008, 20593), id="beyond the end"),
        pytest.param((13000, 13008, 2**32 - 4), id="far beyond the end"),
        pytest.param((13008, 13000, 20592), id="unsorted"),
        pytest.param((13000, 13000, 20592), id="twice"),
        pytest.param((13000, 13007, 20592), id="overlapping"),
        pytest.param((12288, 13008, 20592), id="in the export table"),
        pytest.param((12296, 13008, 20592), id="in the function table"),
        pytest.param((12396, 13008, 20592), id="into the relocation list"),
        pytest.param((12408, 13008, 20592), id="out of the relocation list"),
    ],
)
@pytest.mark.case("C02")
def test_bad_relocations_are_refused(relocations: tuple[int, ...]) -> None:
    with pytest.raises(ImageError):
        check(image(relocations=relocations))


@pytest.mark.parametrize(
    "changes",
    [
        {"reloc_count": 2**62},
        {"reloc_count": 2**32 // 4},
        {"reloc_offset": 4096},
        {"reloc_offset": 12401},
        {"reloc_offset": 20476},
        {"reloc_offset": 2**64 - 12},
    ],
    ids=str,
)
@pytest.mark.case("C02")
def test_a_relocation_list_outside_the_constants_is_refused(changes: dict[str, int]) -> None:
    with pytest.raises(ImageError):
        check(spoilt(**changes))


@given(st.sampled_from(FIELDS), st.integers(0, 2**64 - 1) | st.integers(0, 30000))
def test_any_header_field_gives_a_sound_header_or_an_error(name: str, value: int) -> None:
    try:
        header = check(spoilt(**{name: value}))
    except ImageError:
        return
    assert header.file_bytes == HEADER.file_bytes
    assert header.rodata_offset <= header.reloc_offset + 4 * header.reloc_count <= header.data_offset
    assert header.code_offset <= header.entry_offset < header.rodata_offset


@given(st.binary(max_size=200), st.integers(0, 20600))
def test_any_bytes_give_an_image_or_an_error(data: bytes, place: int) -> None:
    spoilt_image = image()
    spoilt_image[place : place + len(data)] = data
    del spoilt_image[HEADER.file_bytes :]
    try:
        header = check(spoilt_image)
    except ImageError:
        return
    exports = image_table(memoryview(spoilt_image), header.export_offset, header.export_count)
    assert all(header.code_offset <= offset < header.rodata_offset for offset in exports)


def test_the_header_matches_the_c_structure(tmp_path: object) -> None:
    packed = HEADER.pack()
    assert len(packed) == 4096
    assert struct.unpack_from("<Q", packed, 8 * 18)[0] == HEADER.tls_align
