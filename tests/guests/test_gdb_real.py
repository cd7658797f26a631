"""A real gdb on the debugger: breakpoints by name, arguments, steps, faults, interrupts, several CPUs."""

from __future__ import annotations

import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from gdb_machine import BASE, TinyMachine, compile_machine

from hypervisor_agent.enclave.gdbaddress import listen
from hypervisor_agent.enclave.gdbserver import serve_gdb

pytestmark = pytest.mark.skipif(shutil.which("gdb") is None, reason="gdb is absent")
Make = Callable[..., TinyMachine]


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return compile_machine(tmp_path_factory.mktemp("machine"))


@pytest.fixture
def make(image: Path, tmp_path: Path) -> Iterator[Make]:
    made: list[TinyMachine] = []
    listener = listen(f"unix:{tmp_path}/gdb")

    def run(**options: bool | int) -> TinyMachine:
        machine = TinyMachine(image, **options)  # type: ignore[arg-type]
        threading.Thread(target=serve_gdb, args=(listener, machine.debugger), daemon=True).start()
        made.append(machine)
        machine.start()
        return machine

    yield run
    listener.close()
    for machine in made:
        machine.close()


def gdb(image: Path, tmp_path: Path, *commands: str) -> list[str]:
    first = ["set pagination off", "set confirm off", f"file {image}", f"target remote {tmp_path}/gdb"]
    return ["gdb", "-nx", "-batch", *(word for command in (*first, *commands) for word in ("-ex", command))]


def talk(image: Path, tmp_path: Path, *commands: str) -> str:
    command = gdb(image, tmp_path, *commands)
    done = subprocess.run(command, capture_output=True, text=True, timeout=40, check=False)
    return done.stdout + done.stderr


def test_a_breakpoint_by_name_shows_arguments_and_callers(make: Make, image: Path, tmp_path: Path) -> None:
    machine = make()
    said = talk(
        image, tmp_path,
        "break scale", "continue", "backtrace", "print bounds->low", "finish",
        "set var turns = 99", "continue", "print value", "finish", "delete", "detach",
    )  # fmt: skip
    assert "Breakpoint 1, scale (value=" in said
    assert "outer" in said
    assert "_start" in said
    assert "$1 = 7" in said
    assert "Value returned is" in said
    assert "$3 = 100" in said
    assert "Value returned is $4 = 307" in said
    assert "detached" in said
    assert not machine.debugger.halted


def test_a_step_is_one_instruction_and_registers_can_be_changed(
    make: Make, image: Path, tmp_path: Path
) -> None:
    make()
    said = talk(
        image, tmp_path,
        "hbreak scale", "continue", "set $before = $rip", "stepi", "print $rip != $before",
        "print $rip - $before < 16", "set $rdi = 0x1234", "print/x $rdi", "set $xmm3.uint128 = 77",
        "print $xmm3.uint128", "print $mxcsr", "delete", "print limit", "kill",
    )  # fmt: skip
    assert "$1 = 1" in said
    assert "$2 = 1" in said
    assert "$3 = 0x1234" in said
    assert "$4 = 77" in said
    assert str(1 << 60) in said


def test_gdb_may_call_a_function(make: Make, image: Path, tmp_path: Path) -> None:
    make()
    said = talk(image, tmp_path, "break scale", "continue", "delete", "print scale(5, bounds)", "kill")
    assert "$1 = 22" in said


def test_a_fault_is_shown_before_it_ends_anything(make: Make, image: Path, tmp_path: Path) -> None:
    machine = make()
    said = talk(image, tmp_path, "set var limit = 0", "continue", "backtrace", "info line", "detach")
    assert "SIGSEGV" in said
    assert "_start" in said
    assert machine.fault.wait(20)
    assert machine.ended.wait(20)


def test_ctrl_c_stops_what_runs(make: Make, image: Path, tmp_path: Path) -> None:
    machine = make()
    process = subprocess.Popen(
        gdb(image, tmp_path, "continue", "print turns > 0", "detach"), stdout=subprocess.PIPE, text=True
    )
    until = time.monotonic() + 30
    while machine.debugger._session is None and time.monotonic() < until:
        time.sleep(0.05)
    while machine.debugger.halted and time.monotonic() < until:
        time.sleep(0.05)
    time.sleep(0.3)
    process.send_signal(signal.SIGINT)
    said, _ = process.communicate(timeout=60)
    assert "SIGINT" in said
    assert "$1 = 1" in said


def test_the_base_is_told(make: Make, image: Path, tmp_path: Path) -> None:
    make()
    assert f"{BASE:#x}" in talk(image, tmp_path, "monitor base", "kill")


def test_every_vcpu_is_a_thread_and_stands_with_the_others(make: Make, image: Path, tmp_path: Path) -> None:
    machine = make(cpus=2)
    said = talk(
        image, tmp_path,
        "info threads", "break scale thread 2", "continue", "thread", "thread 1", "stepi", "thread 2",
        "delete", "detach",
    )  # fmt: skip
    assert "Thread 1 (vCPU 0)" in said
    assert "Thread 2 (vCPU 1)" in said
    assert "Current thread is 2" in said
    assert not machine.debugger.halted


def test_an_enclave_may_wait_for_gdb(make: Make, image: Path, tmp_path: Path) -> None:
    machine = make(wait=True)
    assert machine.debugger.halted
    said = talk(image, tmp_path, "print turns", "break outer", "continue", "print value", "kill")
    assert "$1 = 0" in said
    assert "$2 = 0" in said


def test_a_second_gdb_comes_after_the_first_and_one_that_vanishes_lets_go(
    make: Make, image: Path, tmp_path: Path
) -> None:
    machine = make()
    first = talk(image, tmp_path, "break scale", "continue", "python import os; os._exit(0)")
    assert "Breakpoint 1, scale" in first
    until = time.monotonic() + 20
    while machine.debugger.halted and time.monotonic() < until:
        time.sleep(0.05)
    assert not machine.debugger.halted
    assert "value=" in talk(image, tmp_path, "break scale", "continue", "detach")
