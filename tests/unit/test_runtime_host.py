"""The runtime's arithmetic and its allocator, compiled for the host with UBSan and tried at random."""

from __future__ import annotations

import ctypes
import subprocess

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cafe_lib.toolchain.compile import INCLUDE, RUNTIME

HEAP_BYTES = 1 << 20
ABORT = 7
HARNESS = """
#include <setjmp.h>
#include "rt.h"
#include "rt_heap.c"
#pragma GCC visibility push(default)
static jmp_buf back;
void rt_abort(enum cafe_status status) { longjmp(back, (int)status); }
void rt_lock(struct rt_lock *lock) { lock->owner = 1; }
void rt_unlock(struct rt_lock *lock) { lock->owner = 0; }
void t_start(void *memory, uint64_t bytes) {
    memset(&heap, 0, sizeof heap);
    rt_heap_start((uint64_t)(uintptr_t)memory, bytes, 0x1234567890abcdefull);
}
int t_try_free(void *pointer) {
    int status = setjmp(back);
    if (!status)
        free(pointer);
    rt_unlock(&heap.lock);
    return status;
}
int t_area(uint64_t *offset, uint64_t count, uint64_t size, uint64_t align, uint64_t slot, uint64_t *start) {
    return rt_area(offset, count, size, align, slot, start);
}
void t_copy(void *to, const void *from, uint64_t n, int out) {
    if (out)
        rt_write(to, from, n);
    else
        rt_read(to, from, n);
}
"""
RENAMED = [
    *("malloc", "free", "calloc", "realloc", "aligned_alloc", "posix_memalign", "memalign"),
    *("malloc_usable_size", "__libc_malloc", "__libc_calloc", "__libc_realloc", "__libc_free"),
]
NUMBER = st.integers(0, 2**64 - 1) | st.integers(0, 70000) | st.integers(2**32 - 9, 2**32 + 9)


@pytest.fixture(scope="module")
def runtime(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    output = tmp_path_factory.mktemp("runtime")
    (output / "harness.c").write_text(HARNESS)
    flags = [
        "-shared",
        "-fPIC",
        "-O1",
        "-w",
        "-fno-builtin",
        "-fsanitize=undefined",
        "-fno-sanitize-recover=all",
    ]
    names = [f"-D{name}=t_{name}" for name in RENAMED]
    command = ["gcc", *flags, *names, f"-I{RUNTIME}", f"-I{INCLUDE}", output / "harness.c"]
    subprocess.run([*command, "-o", output / "runtime.so"], check=True)
    library = ctypes.CDLL(str(output / "runtime.so"))
    for name in ("malloc", "calloc", "realloc", "aligned_alloc"):
        getattr(library, f"t_{name}").restype = ctypes.c_void_p
    return library


@pytest.mark.case("B06")
@given(NUMBER, NUMBER, st.integers(0, 2**40), st.integers(0, 12), st.integers(4096, 64 << 20))
def test_areas_are_what_unbounded_arithmetic_says(
    runtime: ctypes.CDLL, offset: int, count: int, size: int, shift: int, slot: int
) -> None:
    align = 1 << shift
    start = -(-offset // align) * align
    end = start + count * size
    place, found = ctypes.c_uint64(offset), ctypes.c_uint64(77)
    words = [ctypes.c_uint64(value) for value in (count, size, align, slot)]
    fits = runtime.t_area(ctypes.byref(place), *words, ctypes.byref(found))
    if end <= slot:
        assert (fits, found.value, place.value) == (1, start, end)
    else:
        assert (fits, found.value, place.value) == (0, 77, offset)


@given(st.binary(max_size=700), st.booleans(), st.integers(0, 15))
def test_copies_are_exact(runtime: ctypes.CDLL, data: bytes, out: bool, shift: int) -> None:  # noqa: FBT001  # drawn
    target = ctypes.create_string_buffer(b"\xee" * 800, 800)
    runtime.t_copy(ctypes.byref(target, shift), data, ctypes.c_uint64(len(data)), int(out))
    assert target.raw == b"\xee" * shift + data + b"\xee" * (800 - shift - len(data))


class Heap:
    """Blocks of the allocator under test, filled with their own pattern."""

    def __init__(self, runtime: ctypes.CDLL) -> None:
        self.runtime = runtime
        self.memory = ctypes.create_string_buffer(HEAP_BYTES + 16)
        self.base = -(-ctypes.addressof(self.memory) // 16) * 16
        self.blocks: dict[int, bytes] = {}
        runtime.t_start(ctypes.c_void_p(self.base), ctypes.c_uint64(HEAP_BYTES))

    def add(self, address: int | None, size: int, align: int = 16) -> None:
        if address is None:
            return
        assert address % align == 0
        assert self.base <= address
        assert address + size <= self.base + HEAP_BYTES
        assert all(address + size <= at or at + len(held) <= address for at, held in self.blocks.items())
        self.blocks[address] = bytes([(len(self.blocks) * 37 + 1) % 251]) * size
        ctypes.memmove(address, self.blocks[address], size)

    def take(self, address: int) -> bytes:
        held = self.blocks.pop(address)
        assert ctypes.string_at(address, len(held)) == held
        return held


ACTIONS = st.lists(
    st.tuples(
        st.sampled_from(["malloc", "calloc", "aligned", "realloc", "free", "free"]),
        st.integers(0, 300) | st.integers(0, 90000),
        st.integers(0, 12),
    ),
    max_size=80,
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(ACTIONS)
def test_blocks_never_overlap_and_all_memory_comes_back(
    runtime: ctypes.CDLL, actions: list[tuple[str, int, int]]
) -> None:
    heap = Heap(runtime)
    for action, size, which in actions:
        if action == "malloc":
            heap.add(runtime.t_malloc(ctypes.c_size_t(size)), size)
        elif action == "calloc":
            address = runtime.t_calloc(ctypes.c_size_t(size), ctypes.c_size_t(3))
            assert address is None or not any(ctypes.string_at(address, 3 * size))
            heap.add(address, 3 * size)
        elif action == "aligned":
            align = 16 << which % 9
            heap.add(runtime.t_aligned_alloc(ctypes.c_size_t(align), ctypes.c_size_t(size)), size, align)
        elif heap.blocks:
            address = list(heap.blocks)[which % len(heap.blocks)]
            change(heap, action, address, size)
    for address in list(heap.blocks):
        heap.take(address)
        assert runtime.t_try_free(ctypes.c_void_p(address)) == 0
    assert runtime.t_malloc(ctypes.c_size_t(HEAP_BYTES - 16)) == heap.base + 16


def change(heap: Heap, action: str, address: int, size: int) -> None:
    held = heap.take(address)
    if action == "free":
        assert heap.runtime.t_try_free(ctypes.c_void_p(address)) == 0
        return
    moved = heap.runtime.t_realloc(ctypes.c_void_p(address), ctypes.c_size_t(size))
    if moved is None:
        heap.blocks[address] = held
        return
    assert ctypes.string_at(moved, min(size, len(held))) == held[:size]
    heap.add(moved, size)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.lists(st.integers(0, 200), min_size=1, max_size=12), st.integers(-64, HEAP_BYTES + 64))
def test_freeing_what_is_no_block_ends_the_enclave(
    runtime: ctypes.CDLL, sizes: list[int], offset: int
) -> None:
    heap = Heap(runtime)
    blocks = [runtime.t_malloc(ctypes.c_size_t(size)) for size in sizes]
    wrong = heap.base + offset
    assert runtime.t_try_free(ctypes.c_void_p(wrong)) == (0 if wrong in blocks else ABORT)
    assert runtime.t_try_free(ctypes.c_void_p(wrong)) == ABORT


@pytest.mark.parametrize("size", [HEAP_BYTES, HEAP_BYTES - 15, 2**32, 2**63, 2**64 - 1, 2**64 - 31])
def test_too_much_gives_null(runtime: ctypes.CDLL, size: int) -> None:
    heap = Heap(runtime)  # kept: its memory is what the allocator looks into
    asked = ctypes.c_size_t(size)
    assert runtime.t_malloc(asked) is None
    assert runtime.t_aligned_alloc(ctypes.c_size_t(64), asked) is None
    assert runtime.t_aligned_alloc(asked, ctypes.c_size_t(1)) is None
    assert runtime.t_calloc(asked, ctypes.c_size_t(2)) is None
    assert runtime.t_realloc(None, asked) is None
    assert not heap.blocks
