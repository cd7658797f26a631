"""A hostile guest and a real enclave: frames that lie or change, buffers anywhere, what is left behind."""

from __future__ import annotations

import struct
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest
from enclave_caller import FRAME, RESULT, Caller

from cafe_lib.toolchain.build import BuildResult
from hypervisor_agent.abi import BULK_ALIGN, Status

Build = Callable[[Path], BuildResult]
Start = Callable[[BuildResult], Caller]

KIT = Path(__file__).parent / "edge_kit"
BULK = BULK_ALIGN  # where the bulk area begins: the slots end before
BULK_BYTES = 2 << 20
PATTERN = b"\xc5" * 8
TOP = (1 << 64) - 1
RACES = 1500


@pytest.fixture
def kit(build: Build, start: Start) -> Caller:
    return start(build(KIT))


@contextmanager
def rewriting(work: Callable[[], None]) -> Iterator[None]:
    """Let another thread of the guest write all the time."""
    stop = threading.Event()

    def write() -> None:
        while not stop.is_set():
            work()

    thread = threading.Thread(target=write)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def result(kit: Caller, slot: int = 0) -> int:
    at = kit.base(slot) + RESULT
    return int.from_bytes(kit.map[at : at + 8], "little")


def add(kit: Caller, source: int, target: int, rows: int, columns: int = 1) -> Status:
    """Call edge_add with these words for its buffers."""
    kit.put(struct.pack("<4Q", source, target, rows, columns))
    return kit.request(kit.index("edge_add"))


# ---- strings


@pytest.mark.case("B05")
@pytest.mark.parametrize("length", [64, 65, 4096, 8192, 1 << 32, 1 << 63, TOP])
def test_string_without_an_end(kit: Caller, length: int) -> None:
    kit.put(struct.pack("<Q", length) + bytes(8) + b"a" * 4000)
    assert kit.request(kit.index("edge_text")) in {Status.MALFORMED, Status.LIMIT}
    assert kit.call("edge_text", b"good\0").value == 4 << 32 | 4


@pytest.mark.case("B05", "B08")
def test_string_that_grows_during_the_call(kit: Caller) -> None:
    """It has one length for the secret code, below the interface's bound, or there is no call."""
    base, entry = kit.base(0), kit.index("edge_text")
    text = base + FRAME + 16

    def grow() -> None:
        kit.map[text : text + 128] = b"a" * 128
        kit.words[(base + FRAME) // 4] = 128
        kit.map[text + 5] = 0
        kit.words[(base + FRAME) // 4] = 6
        kit.words[(base + FRAME + 4) // 4] = 1
        kit.words[(base + FRAME + 4) // 4] = 0

    seen = set()
    with rewriting(grow):
        for _ in range(RACES):
            status = kit.request(entry)
            lengths = result(kit)
            seen.add(status)
            assert lengths >> 32 == lengths & 0xFFFFFFFF < 64
    assert seen <= {Status.OK, Status.MALFORMED, Status.LIMIT}
    assert kit.call("edge_text", b"good\0").value == 4 << 32 | 4


# ---- sizes


@pytest.mark.case("B04", "B06")
@pytest.mark.parametrize(
    ("rows", "columns"),
    [
        (1 << 32, 1 << 32),
        (1 << 63, 2),
        (TOP, TOP),
        (1, TOP),
        (1, TOP - 15),
        (TOP // 3, 3),
        (1, 1 << 32),
        (1, BULK_BYTES + 1),
    ],
)
def test_sizes_that_wrap_or_do_not_fit(kit: Caller, rows: int, columns: int) -> None:
    for source, target in ((1, 1), (BULK, BULK), (1, BULK), (BULK, 1)):
        assert add(kit, source, target, rows, columns) in {Status.MALFORMED, Status.LIMIT}
    assert add(kit, 1, 1, 4097) == Status.LIMIT, "each alone would fit"
    assert kit.call("edge_echo", 5).value == 5


# ---- places


@pytest.mark.case("B04", "B07")
def test_words_that_are_no_place(kit: Caller) -> None:
    """In the header, in slots, before, in and beyond the bulk area, unaligned, anywhere in 64 bits."""
    end = BULK + BULK_BYTES
    words = [2, 63, 64, 4096, kit.base(0), kit.base(1), BULK - 64, BULK + 1, BULK + 63, BULK + 32]
    words += [end, end + 64, end - 1, end - 32, 1 << 32, (1 << 32) + BULK, 1 << 63, TOP, TOP - 63]
    words += [TOP + 1 - BULK, kit.channel.size, 1 << 47]
    for word in words:
        assert add(kit, word, 1, 64) == Status.MALFORMED, hex(word)
        assert add(kit, 1, word, 64) == Status.MALFORMED, hex(word)
    assert kit.call("edge_echo", 5).value == 5


@pytest.mark.case("B07")
@pytest.mark.parametrize("over", [1, 64, 4096])
def test_buffers_that_straddle_an_edge(kit: Caller, over: int) -> None:
    end = BULK + BULK_BYTES
    start = end - 4096
    kit.map[start:end] = b"a" * 4096
    assert add(kit, start, BULK, 4096) == Status.OK
    assert kit.map[BULK : BULK + 4096] == b"b" * 4096
    for source, target in ((start, BULK), (BULK, start)):
        assert add(kit, source, target, 4096 + over) == Status.MALFORMED
    room = kit.built.manifest.slot_bytes - FRAME - 32
    assert add(kit, 1, BULK, room) == Status.OK, "the slot to its last byte"
    assert add(kit, 1, BULK, room + over) == Status.LIMIT


@pytest.mark.case("B07")
@pytest.mark.parametrize("shift", [-4032, -64, 0, 64, 4032])
def test_buffers_that_overlap_or_are_one(kit: Caller, shift: int) -> None:
    """The secret code has copies: its input does not change under it, and each result is whole."""
    size, source = 4096, BULK + 65536
    data = bytes(i * 7 & 0xFF for i in range(size))
    kit.map[source : source + size] = data
    assert add(kit, source, source + shift, size) == Status.OK
    assert result(kit) == 0, "input bytes that changed"
    found = kit.map[source + shift : source + shift + size]
    assert found == bytes((byte + 1) & 0xFF for byte in data)


@pytest.mark.case("B07", "B08")
def test_bulk_buffers_that_change_during_the_call(kit: Caller) -> None:
    """Both words, the numbers and the bytes are rewritten; the enclave copes, and keeps one copy."""
    base = kit.base(0) + FRAME
    words = (BULK, 1, BULK + 64, TOP, 4096, BULK + BULK_BYTES, 0)
    state = [0]

    def write() -> None:
        state[0] += 1
        kit.words[base // 4] = words[state[0] % 7] & 0xFFFFFFFF
        kit.words[base // 4 + 2] = words[state[0] // 7 % 7] & 0xFFFFFFFF
        kit.words[base // 4 + 4] = (100, 4096, 1 << 31, 8)[state[0] % 4]
        kit.words[base // 4 + 6] = (1, 3, 1 << 30)[state[0] % 3]
        kit.map[BULK + state[0] % 4096] = state[0] & 0xFF

    seen = set()
    with rewriting(write):
        for _ in range(RACES):
            seen.add(status := kit.request(kit.index("edge_add")))
            if status is Status.OK:
                assert result(kit) in {0, TOP}
    assert seen <= {Status.OK, Status.MALFORMED, Status.LIMIT}
    assert kit.call("edge_echo", 5).value == 5


# ---- what is left behind


@pytest.mark.case("B03", "B10")
def test_nothing_of_a_call_is_left_for_the_guest(kit: Caller) -> None:
    """Buffers that secret code did not write, holes in results, the rest of the slot, other slots."""
    for slot in range(3):
        kit.call("edge_fill", 2000, 2000, slot=slot)
        kit.map[kit.base(slot) + FRAME : kit.base(slot + 1)] = bytes(kit.built.manifest.slot_bytes - FRAME)
        reply = kit.call("edge_leave", 2000, 2000, slot=slot)
        assert (reply.status, reply.outs["out"]) == (Status.OK, bytes(2000))
        padded = kit.call("edge_holes", 3, 0x1122334455667788, slot=slot).value
        assert padded == struct.pack("<BxxxxxxxQBxxxxxxx", 3, 0x1122334455667788, 1)
    assert PATTERN not in kit.map[:], "anywhere in the region"


@pytest.mark.case("B03")
def test_an_error_leaves_nothing_either(kit: Caller) -> None:
    kit.call("edge_fill", 2000, 2000)
    kit.map[kit.base(0) + FRAME : kit.base(1)] = bytes(kit.built.manifest.slot_bytes - FRAME)
    kit.put(struct.pack("<QI", 1, 1 << 31))
    assert kit.request(kit.index("edge_leave")) == Status.LIMIT
    assert kit.map[kit.base(0) + RESULT : kit.base(0) + RESULT + 56] == bytes(56)
    assert PATTERN not in kit.map[:]


# ---- entries


@pytest.mark.case("B13")
def test_byte_offsets_of_the_image_are_no_entries(kit: Caller) -> None:
    """Every offset around each exported function, and the edges of all areas, as the entry's number."""
    header = kit.built.image.header
    count = len(kit.built.interface.functions)
    offsets = {header.code_offset + at for at in range(700)} | {header.rodata_offset, header.data_offset}
    offsets |= {header.entry_offset + at for at in range(-16, 16)}
    for offset in sorted(offset for offset in offsets if offset >= count):
        assert kit.request(offset) == Status.ENTRY, hex(offset)
    assert kit.call("edge_echo", 5).value == 5


# ---- random state


@pytest.mark.case("B18")
def test_random_state_is_nobody_elses(kit: Caller, start: Start) -> None:
    """Of two enclaves from one package, and of the vCPUs of each: canaries and bytes."""
    canaries, pieces = [], []
    for caller in (kit, start(kit.built)):
        own = set()
        with ThreadPoolExecutor(3) as pool:
            for _ in range(10):
                calls = [pool.submit(caller.call, "edge_canary", 30_000, 32, slot=slot) for slot in range(3)]
                for reply in (one.result() for one in calls):
                    own.add(reply.value)
                    pieces += [reply.outs["bytes"][:16], reply.outs["bytes"][16:]]
        canaries.append(own)
    assert not canaries[0] & canaries[1]
    assert all(len(own) <= 2 and 0 not in own for own in canaries)
    assert len(set(pieces)) == len(pieces) == 2 * 10 * 3 * 2


# ---- time


def cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / 100


@pytest.mark.case("B12", "B17")
def test_a_forged_reply_keeps_nobody_awake(kit: Caller) -> None:
    """A slot that looks as if it were asked for ever; the enclave has answered it long ago."""
    kit.call("edge_echo", 1)
    for slot in range(3):
        kit.words[kit.base(slot) // 4] ^= 0x5555
    time.sleep(0.3)
    before = cpu_seconds(kit.enclave.pid)
    time.sleep(1)
    assert cpu_seconds(kit.enclave.pid) - before < 0.4
    for slot in range(3):
        kit.words[kit.base(slot) // 4] ^= 0x5555
    assert kit.call("edge_echo", 5).value == 5
