"""`cafe doctor`: what each state of a machine is called, and that everything amiss says what to do."""

from __future__ import annotations

import json
from dataclasses import dataclass, field

import pytest
from typer.testing import CliRunner

from cafe_lib.cli import doctor as command
from cafe_lib.cli.main import app
from cafe_lib.doctor.examine import examine, render, worst
from cafe_lib.doctor.finding import Finding, KvmFacts, State
from cafe_lib.doctor.host import KVM_CAPABILITIES
from cafe_lib.doctor.machine import LocalMachine

SYS = "/sys/devices/system/cpu"
GOOD_FLAGS = "fpu rdrand cx16 lahf_lm popcnt sse4_1 sse4_2 ssse3 avx avx2 bmi1 bmi2 f16c fma abm movbe xsave"
FILES = {
    "/proc/cpuinfo": f"processor : 0\nflags\t\t: {GOOD_FLAGS}",
    "/proc/sys/kernel/osrelease": "6.1.0-18-amd64",
    "/proc/sys/kernel/core_pattern": "|/bin/false",
    "/proc/sys/kernel/yama/ptrace_scope": "2",
    "/proc/swaps": "Filename\tType\tSize\tUsed\tPriority",
    "/sys/kernel/security/lockdown": "none integrity [confidentiality]",
    "/sys/kernel/mm/transparent_hugepage/shmem_enabled": "always [advise] never",
    f"{SYS}/smt/active": "0",
    f"{SYS}/vulnerabilities/mds": "Not affected",
    f"{SYS}/vulnerabilities/spectre_v2": "Mitigation: Retpolines; STIBP: disabled",
    "/sys/devices/system/clocksource/clocksource0/current_clocksource": "tsc",
}


@dataclass
class FakeMachine:
    """A machine that is all right, but for what a test changes."""

    files: dict[str, str] = field(default_factory=lambda: dict(FILES))
    devices: dict[str, bool] = field(default_factory=lambda: {"/dev/kvm": True, "/dev/tpmrm0": True})
    absent: tuple[str, ...] = ()
    memlock: int | None = None
    scheduling: bool = True
    version: int = 12
    capabilities: dict[int, int] = field(default_factory=lambda: dict.fromkeys(KVM_CAPABILITIES, 1))

    def read(self, path: str) -> str | None:
        return self.files.get(path)

    def names(self, path: str) -> tuple[str, ...]:
        found = {name[len(path) + 1 :].split("/")[0] for name in self.files if name.startswith(path + "/")}
        return tuple(sorted(found))

    def may_use(self, path: str) -> bool | None:
        return self.devices.get(path)

    def kvm(self, capabilities: tuple[int, ...]) -> KvmFacts | None:
        return KvmFacts(self.version, {one: self.capabilities.get(one, 0) for one in capabilities})

    def program(self, name: str) -> str | None:
        return None if name in self.absent else f"/usr/bin/{name}"

    def file_exists(self, path: str) -> bool:
        return "musl" not in self.absent and "musl" in path

    def has_module(self, name: str) -> bool:
        return name not in self.absent

    def memlock_bytes(self) -> int | None:
        return self.memlock

    def core_scheduling(self) -> bool:
        return self.scheduling


def found(machine: FakeMachine, name: str) -> Finding:
    (finding,) = [one for one in examine(machine) if one.name == name]
    return finding


def test_a_good_machine_has_nothing_to_do() -> None:
    findings = examine(FakeMachine())
    assert {finding.state for finding in findings} == {State.OK}
    assert worst(findings) is State.OK
    assert not any(finding.todo for finding in findings)
    assert len({finding.name for finding in findings}) == len(findings)


def files(**changes: str | None) -> dict[str, str]:
    """Return FILES with the one whose name ends so changed."""
    kept = dict(FILES)
    for end, value in changes.items():
        (path,) = [path for path in FILES if path.rpartition("/")[2] == end]
        if value is None:
            del kept[path]
        else:
            kept[path] = value
    return kept


CASES = [
    ("kvm", State.FAIL, "no /dev/kvm", FakeMachine(devices={"/dev/tpmrm0": True})),
    ("kvm", State.FAIL, "may not", FakeMachine(devices={"/dev/kvm": False, "/dev/tpmrm0": True})),
    ("kvm", State.FAIL, "immediate exit", FakeMachine(capabilities=dict.fromkeys([3, 7, 55, 56, 74], 1))),
    ("kvm", State.FAIL, "version 11", FakeMachine(version=11)),
    ("tpm", State.WARN, "swtpm", FakeMachine(devices={"/dev/kvm": True})),
    ("tpm", State.FAIL, "none", FakeMachine(devices={"/dev/kvm": True}, absent=("swtpm",))),
    ("tpm", State.FAIL, "may not", FakeMachine(devices={"/dev/kvm": True, "/dev/tpmrm0": False})),
    ("cpu: rdrand", State.FAIL, "absent", FakeMachine(files(cpuinfo="flags : fpu cx16"))),
    ("cpu: ISA level", State.WARN, "x86-64", FakeMachine(files(cpuinfo="flags : rdrand"))),
    ("cpu: SMT", State.WARN, "has core scheduling", FakeMachine(files(active="1"))),
    ("cpu: SMT", State.WARN, "no core scheduling", FakeMachine(files(active="1"), scheduling=False)),
    ("cpu: SMT", State.WARN, "unknown", FakeMachine(files(active=None))),
    ("cpu: mds", State.WARN, "Vulnerable", FakeMachine(files(mds="Vulnerable; no microcode"))),
    ("cpu: mds", State.WARN, "SMT", FakeMachine(files(mds="Mitigation: Clear CPU buffers; SMT vulnerable"))),
    ("cpu: mds", State.WARN, "Unknown", FakeMachine(files(mds="Unknown: No mitigations"))),
    ("cpu: mds", State.WARN, "KVM", FakeMachine(files(mds="KVM: Vulnerable"))),
    ("cpu: flaws", State.WARN, "not say", FakeMachine(files(mds=None, spectre_v2=None))),
    ("clock source", State.WARN, "hpet", FakeMachine(files(current_clocksource="hpet"))),
    ("kernel", State.FAIL, "5.15", FakeMachine(files(osrelease="5.15.0"))),
    ("kernel", State.FAIL, "unknown", FakeMachine(files(osrelease=None))),
    ("kernel lockdown", State.WARN, "none", FakeMachine(files(lockdown="[none] integrity"))),
    ("kernel lockdown", State.WARN, "not available", FakeMachine(files(lockdown=None))),
    ("ptrace", State.WARN, "any process", FakeMachine(files(ptrace_scope="0"))),
    ("ptrace", State.WARN, "no Yama", FakeMachine(files(ptrace_scope=None))),
    ("RLIMIT_MEMLOCK", State.WARN, "8192 KiB", FakeMachine(memlock=8 << 20)),
    ("RLIMIT_MEMLOCK", State.OK, "2048 MiB", FakeMachine(memlock=2 << 30)),
    ("core dumps", State.WARN, "core.%p", FakeMachine(files(core_pattern="core.%p"))),
    ("huge pages", State.WARN, "never", FakeMachine(files(shmem_enabled="always [never]"))),
    ("compiler", State.WARN, "g++", FakeMachine(absent=("g++",))),
    ("musl", State.WARN, "absent", FakeMachine(absent=("musl",))),
    ("libclang", State.WARN, "absent", FakeMachine(absent=("clang.cindex",))),
    ("rustc", State.WARN, "absent", FakeMachine(absent=("rustc",))),
    ("gdb", State.WARN, "absent", FakeMachine(absent=("gdb",))),
]


@pytest.mark.parametrize(("name", "state", "mentions", "machine"), CASES, ids=lambda one: str(one)[:20])
def test_what_is_amiss_is_named(name: str, state: State, mentions: str, machine: FakeMachine) -> None:
    finding = found(machine, name)
    assert finding.state is state
    assert mentions in finding.found
    assert finding.why
    assert bool(finding.todo) is (state is not State.OK)


SWAPS = "Filename Type Size Used Priority\n"


@pytest.mark.parametrize(
    ("swaps", "more", "state"),
    [
        ("/dev/sda2 partition 1 0 -2", {}, State.WARN),
        ("/swapfile file 1 0 -2", {}, State.WARN),
        ("/dev/zram0 partition 1 0 100", {}, State.OK),
        ("/dev/dm-1 partition 1 0 -2", {"/sys/block/dm-1/dm/uuid": "CRYPT-PLAIN-swap"}, State.OK),
        ("/dev/dm-1 partition 1 0 -2", {"/sys/block/dm-1/dm/uuid": "LVM-abc"}, State.WARN),
        (
            "/dev/mapper/swap partition 1 0 -2",
            {"/sys/block/dm-0/dm/name": "swap", "/sys/block/dm-0/dm/uuid": "CRYPT-LUKS2-x"},
            State.OK,
        ),
        ("/dev/mapper/other partition 1 0 -2", {"/sys/block/dm-0/dm/name": "swap"}, State.WARN),
        ("/dev/zram0 partition 1 0 100\n/dev/sda2 partition 1 0 -2", {}, State.WARN),
    ],
)
def test_swap_is_fine_when_it_is_off_or_encrypted(swaps: str, more: dict[str, str], state: State) -> None:
    machine = FakeMachine({**FILES, **more, "/proc/swaps": SWAPS + swaps})
    assert found(machine, "swap").state is state


def test_rendering_says_why_and_what_to_do() -> None:
    text = "\n".join(render(examine(FakeMachine(files(active="1")))))
    assert "warn  cpu: SMT" in text
    assert "why: a tenant" in text
    assert "do:  put each VM" in text
    assert text.count("do:") == 1


def test_a_machine_that_knows_nothing_is_examined_all_the_same() -> None:
    findings = examine(FakeMachine({}, {}, absent=("swtpm", "gcc", "musl", "clang.cindex", "gdb", "rustc")))
    assert worst(findings) is State.FAIL
    assert all(finding.todo for finding in findings if finding.state is not State.OK)


def test_this_machine_can_be_examined() -> None:
    assert {"kvm", "kernel", "swap"} <= {finding.name for finding in examine(LocalMachine())}


@pytest.mark.parametrize(("machine", "code"), [(FakeMachine(), 0), (FakeMachine(devices={}), 1)])
def test_the_command_speaks_json_and_fails_with_the_machine(
    machine: FakeMachine, code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(command, "LocalMachine", lambda: machine)
    done = CliRunner().invoke(app, ["doctor", "--json"])
    assert done.exit_code == code
    assert {"name", "state", "found", "why", "todo"} == set(json.loads(done.stdout)[0])
    assert CliRunner().invoke(app, ["doctor"]).exit_code == code
