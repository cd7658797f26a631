"""Copies between shared and private memory whose sizes a compiler knows, which become single moves."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from cafe_lib.toolchain.compile import INCLUDE, RUNTIME

SIZES = (*range(72), 80, 96, 127, 128, 255, 256, 257, 300)
HEAD = """
#include "rt.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
static void try(uint64_t n, void (*copy)(void *, const void *)) {
    for (unsigned shift = 0; shift < 3; shift++) { /* a sanitizer sees any byte more */
        uint8_t *from = malloc(n + shift), *to = malloc(n + shift);
        for (uint64_t i = 0; i < n + shift; i++) { from[i] = (uint8_t)(i * 7 + 1); to[i] = 0; }
        copy(to + shift, from + shift);
        if (memcmp(to + shift, from + shift, n) != 0 || (shift > 0 && to[shift - 1] != 0)) {
            printf("%lu bytes differ\\n", n);
            exit(1);
        }
        free(from);
        free(to);
    }
}
"""


@pytest.mark.parametrize("level", ["-O0", "-O2"])
@pytest.mark.case("B04", "B08")
def test_every_size_is_copied_whole_and_no_byte_more(tmp_path: Path, level: str) -> None:
    copies = [
        f"static void {way}_{size}(void *to, const void *from) {{ {way}(to, from, {size}); }}"
        for size in SIZES
        for way in ("rt_read", "rt_write")
    ]
    calls = [f"try({size}, {way}_{size});" for size in SIZES for way in ("rt_read", "rt_write")]
    source = tmp_path / "copies.c"
    source.write_text("\n".join([HEAD, *copies, f'int main(void) {{ {" ".join(calls)} puts("whole"); }}\n']))
    flags = [
        level,
        "-Wall",
        "-Wextra",
        "-Werror",
        "-fsanitize=address,undefined",
        "-fno-sanitize-recover=all",
    ]
    command = ["gcc", *flags, f"-I{INCLUDE}", f"-I{RUNTIME}", str(source), "-o", str(tmp_path / "copies")]
    subprocess.run(command, check=True)
    done = subprocess.run([tmp_path / "copies"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "whole\n"), done.stderr


def test_a_known_size_takes_no_loop(tmp_path: Path) -> None:
    """A 64-byte copy is four loads, each of other bytes: nothing is fetched twice."""
    source, listing = tmp_path / "one.c", tmp_path / "one.s"
    source.write_text(
        '#include "rt.h"\nvoid one(void *to, const volatile void *from) { rt_read(to, from, 64); }\n'
    )
    command = ["gcc", "-O2", "-S", f"-I{INCLUDE}", f"-I{RUNTIME}", str(source), "-o", str(listing)]
    subprocess.run(command, check=True)
    loads = [line for line in listing.read_text().splitlines() if "(%rsi)" in line]
    assert len(loads) == 4, loads
    assert not [line for line in listing.read_text().splitlines() if line.strip().startswith("j")]
