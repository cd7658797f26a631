"""The hostile enclave of `cafe fuzz` finds what a public stub does not check; what a worker's end means."""

from __future__ import annotations

from pathlib import Path

import pytest

from cafe_lib.errors import BuildError
from cafe_lib.fuzz.worker import Assignment, Phase, Settings, judge, run_worker
from cafe_lib.fuzz.workshop import Workshop, build_caller, open_workshop
from cafe_lib.toolchain.build import read_interface
from cafe_lib.toolchain.project import load_project

KIT = Path(__file__).resolve().parent / "secrets" / "fuzz_kit"


class Careless(Workshop):
    """Leaves a check out of the generated public stub."""

    def write(self, name: str, text: str) -> Path:
        if name.startswith("public_stub"):
            assert "[n0 - 1] != 0;" in text
            text = text.replace("[n0 - 1] != 0;", "[n0 - 1] == 77;")
        return Workshop.write(self, name, text)


@pytest.mark.case("B09", "B11")
def test_a_public_stub_without_a_check_is_found_out(tmp_path: Path) -> None:
    project = load_project(KIT)
    shop = open_workshop(project, tmp_path)
    careless = Careless(shop.project, shop.place, shop.gcc, shop.gxx)
    program = build_caller(careless, read_interface(project))
    assignment = Assignment(program, 2, Phase.REPLIES, seed=3, count=20_000)
    ending = run_worker(assignment, Settings(tmp_path, hang_seconds=30), lambda _: None)
    assert ending.problem is not None, ending.progress


REPORTS = {
    "memory in c_kit kit.c:7": (
        78,
        """
    #0 0x7f in __interceptor_memcpy ../libsanitizer/x.inc:8
    #1 0x55 in c_kit /somewhere/kit.c:7
SUMMARY: AddressSanitizer: heap-buffer-overflow x.inc:8 in m
""",
    ),
    "undefined": (78, "/somewhere/kit.c:9:3: runtime error: signed integer overflow: 1 + 2\n"),
    "double fetch": (77, "cafe fuzz: double fetch: the byte at offset 80 of the region is read again\n"),
    "crash": (-11, ""),
}


@pytest.mark.parametrize("kind", REPORTS)
def test_what_a_workers_end_means(kind: str) -> None:
    code, text = REPORTS[kind]
    problem = judge(code, text, hung=False, done=False)
    assert problem is not None
    assert problem.kind == kind.split(" in ", maxsplit=1)[0]
    if " in " in kind:
        assert problem.summary == "heap-buffer-overflow in c_kit kit.c:7"


def test_findings_that_differ_in_numbers_only_are_one() -> None:
    text = "k.cc:9:3: runtime error: signed integer overflow: {} + 2\n  #0 0x7f in kit::f(int) /x/kit.cc:9\n"
    one, other = (judge(78, text.format(number), hung=False, done=False) for number in (17, 400))
    assert one is not None
    assert other is not None
    assert one.likeness == other.likeness == "signed integer overflow: N + N in kit::f kit.cc:9"


def test_an_end_that_is_no_finding() -> None:
    assert judge(0, "", hung=False, done=True) is None
    assert judge(0, "", hung=False, done=False) is not None, "it left before it was done"
    assert judge(-9, "", hung=True, done=False) is not None
    with pytest.raises(BuildError):
        judge(2, "usage", hung=False, done=False)
