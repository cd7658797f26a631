"""voucher in Python: the same commands as main.rs, through the generated module (PYTHONPATH=build/python)."""

from __future__ import annotations

import sys

import voucher

USAGE = "usage: main.py issue SERIAL CENTS | check CODE | total < CODES"
WRONG, USED_BADLY, FAILED = 1, 2, 3
CODE_BYTES = 24


def issue(serial: int, cents: int) -> int:
    """Print a new code."""
    result, code = voucher.voucher_issue(voucher.voucher(serial, cents))
    if result != voucher.voucher_result.VOUCHER_OK:
        print("a voucher is worth 1 to 16777215 cents", file=sys.stderr)
        return USED_BADLY
    print(code.rstrip(b"\0").decode())
    return 0


def check(code: str) -> int:
    """Print what a code is worth."""
    result, found = voucher.voucher_check(code)
    if result == voucher.voucher_result.VOUCHER_OK:
        print(f"serial {found.serial} cents {found.cents}")
        return 0
    forged = result == voucher.voucher_result.VOUCHER_FORGED
    print("nobody issued this code" if forged else "this is no code", file=sys.stderr)
    return WRONG if forged else USED_BADLY


def total() -> int:
    """Add up the codes on standard input."""
    codes = [line.strip().encode()[: CODE_BYTES - 1].ljust(CODE_BYTES, b"\0") for line in sys.stdin]
    cents, bad = voucher.voucher_total(b"".join(codes))
    print(f"cents {cents} bad {bad}")
    return 0


def main(words: list[str]) -> int:
    """Run one command; an exit code says how it went."""
    try:
        match words:
            case ["issue", serial, cents] if serial.isdecimal() and cents.isdecimal():
                return issue(int(serial), int(cents))
            case ["check", code]:
                return check(code)
            case ["total"]:
                return total()
    except OverflowError as error:
        print(error, file=sys.stderr)
        return USED_BADLY
    except voucher.CafeCallError as error:
        print(error, file=sys.stderr)
        return FAILED
    print(USAGE, file=sys.stderr)
    return USED_BADLY


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
