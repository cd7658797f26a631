"""totp in Python: one-time codes from the same library, through the module that `cafe build` generates.

Run it with PYTHONPATH=build/python; it finds build/libtotp.so by itself.
"""

from __future__ import annotations

import argparse
import sys
import time

import totp

HASHES = {
    "sha1": totp.totp_hash.TOTP_SHA1,
    "sha256": totp.totp_hash.TOTP_SHA256,
    "sha512": totp.totp_hash.TOTP_SHA512,
}
WRONG, USED_BADLY, FAILED = 1, 2, 3


def parse(words: list[str]) -> argparse.Namespace:
    """Read the command line; ends the program with 2 if it makes no sense."""
    parser = argparse.ArgumentParser(prog="main.py")
    parser.add_argument("-t", "--time", type=int, default=int(time.time()))
    parser.add_argument("-a", "--algorithm", choices=HASHES, default="sha1")
    commands = parser.add_subparsers(dest="command", required=True)
    code = commands.add_parser("code")
    code.add_argument("account")
    code.add_argument("-d", "--digits", type=int, default=6)
    verify = commands.add_parser("verify")
    verify.add_argument("account")
    verify.add_argument("code")
    verify.add_argument("-w", "--window", type=int, default=1)
    return parser.parse_args(words)


def print_code(options: argparse.Namespace) -> int:
    """Print the code of an account."""
    hash_ = HASHES[options.algorithm]
    result, code = totp.totp_code(options.account, options.time, hash_, options.digits)
    if result != totp.totp_result.TOTP_OK:
        return USED_BADLY
    print(code.rstrip(b"\0").decode())
    return 0


def verify(options: argparse.Namespace) -> int:
    """Print by how many steps a code is off; exit code 1 if it is not valid."""
    hash_ = HASHES[options.algorithm]
    result, drift = totp.totp_verify(options.account, options.time, hash_, options.code, options.window)
    if result == totp.totp_result.TOTP_OK:
        print(f"valid, {drift:+} steps")
        return 0
    return WRONG if result == totp.totp_result.TOTP_WRONG else USED_BADLY


def main(words: list[str]) -> int:
    """Run one command."""
    options = parse(words)
    try:
        return print_code(options) if options.command == "code" else verify(options)
    except totp.CafeCallError as error:
        print(error, file=sys.stderr)
        return FAILED


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
