"""gdb's protocol: packets of any form give an answer or a typed error, and sessions stay within bounds."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cafe_lib.errors import LimitError, MalformedError
from hypervisor_agent.enclave.gdbaddress import Gdb, parse_address, parse_arguments
from hypervisor_agent.enclave.gdbpacket import (
    MAX_PACKET_BYTES,
    REGISTERS,
    PacketReader,
    Sign,
    checksum,
    encode_packet,
    escape,
    target_description,
)
from hypervisor_agent.enclave.gdbstub import SIGTRAP, Answer, GdbSession, Stop, Then

BASE = 0x555500000000


class Memory:
    """A machine of two threads, with registers that know their names and a page of memory."""

    image_base = BASE
    threads = 2

    def __init__(self) -> None:
        self.registers = {(thread, register.name): 0 for thread in (1, 2) for register in REGISTERS}
        self.page = bytearray(range(256))

    def read_register(self, thread: int, name: str) -> int | None:
        return None if name == "fop" else self.registers[thread, name]

    def write_register(self, thread: int, name: str, value: int) -> bool:
        self.registers[thread, name] = value
        return name != "fop"

    def read_memory(self, address: int, size: int) -> bytes:
        return bytes(self.page[address : address + size])

    def write_memory(self, address: int, data: bytes) -> bool:
        if address + len(data) > len(self.page):
            return False
        self.page[address : address + len(data)] = data
        return True


def session() -> GdbSession:
    return GdbSession(Memory(), Stop(SIGTRAP, 1))


def said(one: GdbSession, packet: bytes) -> bytes | None:
    return one.answer(packet).text


def test_packets_and_signs_in_any_pieces() -> None:
    stream = b"+" + encode_packet(b"g") + b"\x03-" + encode_packet(b"m10,4") + b"$g#00" + b"junk"
    for size in range(1, len(stream)):
        reader, found = PacketReader(), []
        for start in range(0, len(stream), size):
            found += list(reader.feed(stream[start : start + size]))
        assert found == [Sign.ACK, b"g", Sign.INTERRUPT, Sign.AGAIN, b"m10,4", Sign.DAMAGED]


@pytest.mark.parametrize("end", [b"", b"#67"])
def test_a_packet_without_end_is_refused(end: bytes) -> None:
    reader = PacketReader()
    with pytest.raises(LimitError):
        list(reader.feed(b"$" + b"g" * (MAX_PACKET_BYTES + 1) + end))


@given(st.lists(st.binary(max_size=60), max_size=8))
def test_any_bytes_give_packets_or_a_limit(pieces: list[bytes]) -> None:
    reader = PacketReader()
    for piece in pieces:
        for item in reader.feed(piece):
            assert isinstance(item, bytes | Sign)


@given(st.binary(max_size=80))
def test_any_packet_gets_an_answer(packet: bytes) -> None:
    answer = session().answer(packet)
    assert isinstance(answer, Answer)
    assert answer.text is None or len(answer.text) <= MAX_PACKET_BYTES
    if answer.text is not None:
        assert list(PacketReader().feed(encode_packet(answer.text))) == [answer.text]


COMMANDS = (b"m", b"M", b"Z0,", b"z1,", b"p", b"P", b"G", b"vCont;", b"H", b"qXfer:features:read:")


@given(st.sampled_from(COMMANDS), st.text("0123456789abcdef,;:=-csgtarget.xml", max_size=40))
def test_any_argument_of_a_known_packet_gets_an_answer(command: bytes, rest: str) -> None:
    assert isinstance(session().answer(command + rest.encode()), Answer)


def test_escaping_hides_what_frames() -> None:
    assert escape(b"a$#}*b") == b"a}\x04}\x03}]}\x0ab"
    assert checksum(b"OK") == 0x9A


def test_the_description_is_xml_with_every_register_in_order() -> None:
    root = ET.fromstring(re.sub(rb"<!DOCTYPE.*?>", b"", target_description()))  # noqa: S314 - ours
    named = [(reg.get("name"), int(reg.get("bitsize") or 0)) for reg in root.iter("reg")]
    assert named == [(register.name, register.bits) for register in REGISTERS]
    assert named[16:18] == [("rip", 64), ("eflags", 32)]


def test_the_description_comes_in_pieces() -> None:
    one, whole, offset = session(), b"", 0
    while True:
        piece = said(one, b"qXfer:features:read:target.xml:%x,%x" % (offset, 100)) or b""
        whole, offset = whole + piece[1:], offset + len(piece) - 1
        if piece[:1] == b"l":
            break
    assert re.sub(rb"}(.)", lambda found: bytes([found[1][0] ^ 0x20]), whole) == target_description()
    assert said(one, b"qXfer:features:read:other.xml:0,100") == b""


def test_registers_one_by_one_and_all() -> None:
    one = session()
    assert said(one, b"P10=efcdab8967452301") == b"OK"
    assert said(one, b"p10") == b"efcdab8967452301"
    everything = said(one, b"g") or b""
    assert len(everything) == 2 * sum(register.size for register in REGISTERS)
    assert b"xxxxxxxx" in everything  # the one that this machine does not have
    assert said(one, b"Hg2") == b"OK"
    assert said(one, b"p10") == b"00" * 8
    assert said(one, b"G" + b"11" * 16) == b"OK"
    assert said(one, b"p1") == b"11" * 8
    for wrong in (b"p99", b"P10=00", b"P10", b"G1", b"P99=00", b"pz", b"G" + b"00" * 4096):
        assert (said(one, wrong) or b"").startswith(b"E"), wrong


def test_memory_and_its_limits() -> None:
    one = session()
    assert said(one, b"m4,3") == b"040506"
    assert said(one, b"m4,0") == b""
    assert said(one, b"mfe,10") == b"feff"
    assert said(one, b"m1000,4") == b"E0e"
    assert said(one, b"M4,2:aabb") == b"OK"
    assert said(one, b"m4,3") == b"aabb06"
    assert said(one, b"M4,3:aabb") == b"E16"
    assert said(one, b"Mff,2:aabb") == b"E0e"
    assert len(said(one, b"m0,ffffffff") or b"") == 512


def test_breakpoints_of_both_kinds_are_kept_apart() -> None:
    one = session()
    assert said(one, b"Z0,10,1") == said(one, b"Z1,10,1") == said(one, b"Z0,20,1") == b"OK"
    assert said(one, b"z0,10,1") == b"OK"
    assert one.breakpoints == {0x10, 0x20}
    assert said(one, b"z1,10,1") == b"OK"
    assert one.breakpoints == {0x20}
    assert said(one, b"Z2,10,1") == b""
    for place in range(2000):
        said(one, b"Z0,%x,1" % place)
    assert len(one.breakpoints) <= 1025


def test_running_stepping_and_leaving() -> None:
    one = session()
    assert one.answer(b"c") == Answer(None, Then.RESUME)
    assert one.answer(b"s") == Answer(None, Then.RESUME, 1)
    assert one.answer(b"vCont;c") == Answer(None, Then.RESUME)
    assert one.answer(b"vCont;s:2") == Answer(None, Then.RESUME, 2, others=False)
    assert one.answer(b"vCont;s:2;c") == Answer(None, Then.RESUME, 2)
    assert one.answer(b"vCont;s:7").text == one.answer(b"vCont;x").text == b"E16"
    assert one.answer(b"D") == Answer(b"OK", Then.DETACH)
    assert one.answer(b"k").then is one.answer(b"vKill;1").then is Then.KILL
    assert one.stopped(Stop(SIGTRAP, 2, breakpoint=True)) == b"T05thread:2;swbreak:;"
    assert said(one, b"?") == b"T05thread:2;swbreak:;"
    assert one.answer(b"s") == Answer(None, Then.RESUME, 2)


def test_questions() -> None:
    one = session()
    assert said(one, b"qOffsets") == b"TextSeg=555500001000"
    assert (
        bytes.fromhex((said(one, b"qRcmd," + b"base".hex().encode()) or b"").decode()) == b"0x555500000000\n"
    )
    assert (said(one, b"qfThreadInfo"), said(one, b"qsThreadInfo")) == (b"m1,2", b"l")
    assert b"swbreak+" in (said(one, b"qSupported:swbreak+") or b"")
    assert said(one, b"QStartNoAckMode") == b"OK"
    assert one.no_ack
    assert (said(one, b"T2"), said(one, b"T3")) == (b"OK", b"E16")
    assert said(one, b"vMustReplyEmpty") == said(one, b"!") == said(one, b"") == b""


@pytest.mark.parametrize("text", ["127.0.0.1:1234", "localhost:1", "[::1]:65535", "unix:/run/gdb"])
def test_gdb_is_served_on_this_machine(text: str) -> None:
    parse_address(text)
    for gdb in (Gdb.parse(text), Gdb.parse(f"{text},wait")):
        assert parse_arguments(gdb.arguments()) == gdb
    assert Gdb.parse(f"{text},wait").wait
    assert parse_arguments([]) is None
    with pytest.raises(MalformedError, match="unknown"):
        parse_arguments(["--gdb"])


@pytest.mark.parametrize(
    "text",
    ["0.0.0.0:1", "[::]:1", "10.0.0.1:1", "example.org:1", "127.0.0.1", "127.0.0.1:0", "127.0.0.1:65536",
     "127.0.0.1:x", ":1234", "1234", "unix:", "/run/gdb", ""],
)  # fmt: skip
def test_and_nowhere_else(text: str) -> None:
    with pytest.raises(MalformedError, match="loopback"):
        parse_address(text)
