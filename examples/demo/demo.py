"""The main job on this machine: protect a function, deploy it to an attested host, call it, try to cheat.

Starts the installed programs, forwards the events they emit, and ends everything it started.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from local_site import Site
from processes import DemoError, Services
from rfc6238 import LINES, expected_codes
from scan import Found, Task, descendants, scan_as_root
from story import Story

ROOT = Path(__file__).resolve().parents[2]
EXAMPLE = ROOT / "examples" / "totp"
APP = "acme/totp"
CONTROL = b"the secret function could not be called"
MEASURED_PCR = 14


class PublicProgram:
    """The example's command line, kept running so that its calls and its memory can be watched."""

    def __init__(self, program: Path, site: Site) -> None:
        self.process = subprocess.Popen(
            [program, "batch"],
            env=site.guest_env(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def ask(self, line: str) -> str:
        """Send one command; return what it printed, or its error message once it has ended."""
        if self.process.stdin is None or self.process.stdout is None:
            raise DemoError("the program has no pipes")
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()
        return self.process.stdout.readline().strip()

    def end(self) -> str:
        """Let it end; return what it said on standard error."""
        return self.process.communicate(timeout=20)[1].strip()


def build_program(built: dict[str, Any], out: Path) -> Path:
    """Compile the public program against the public library, as any program would be."""
    program = out / "totp"
    command = ["gcc", "-O2", f"-I{built['include_dir']}", str(EXAMPLE / "main.c")]
    subprocess.run([*command, built["static_library"], "-pthread", "-o", str(program)], check=True)
    return program


def refused(story: Story, what: str, program: Path, site: Site) -> None:
    """Start the program once and check that it gets no code, only a clear message."""
    started = PublicProgram(program, site)
    code = started.process.communicate("code rfc6238 -t 59 -d 8\n", timeout=30)
    story.check(what, holds=not code[0] and started.process.returncode == 3, found=code[1].strip())


def show_codes(story: Story, program: PublicProgram) -> None:
    """Ask for every value of RFC 6238, appendix B; the first call deploys."""
    for line, expected in zip(LINES, expected_codes(), strict=True):
        got = program.ask(line)
        if got != expected:
            raise DemoError(f"{line}: {got or program.end()}, not {expected}")
    codes = expected_codes()
    for start in range(0, len(codes), 6):
        story.say("         " + " ".join(codes[start : start + 6]))
    story.say(f"     ok  all {len(codes)} values of RFC 6238, appendix B")


def scan_memory(story: Story, site: Site, program: PublicProgram, built: dict[str, Any], out: Path) -> None:
    """Look for the secret code and constant in the public program, and in the enclave, with one scanner."""
    task = Task(
        objects=[str(path) for path in sorted(out.glob("secret/[0-9]*.o"))],
        exported=built["functions"],
        planted=planted_constant().hex(),
        control=CONTROL.hex(),
        groups=[[program.process.pid], descendants(site.agent.process.pid)[1:] if site.agent else []],
    )
    public, enclave = scan_as_root(task)

    def tell(found: Found) -> str:
        return (
            f"{found.code} code windows, {found.planted} planted constants, {found.control} control patterns "
            f"in {found.scanned_bytes / 1e6:.0f} MB"
        )

    clean = public.code == public.constants == public.planted == 0 and public.control > 0
    story.check("the public program's memory", holds=clean, found=tell(public))
    story.check("the enclave's memory", holds=enclave.code > 0 and enclave.planted > 0, found=tell(enclave))


def planted_constant() -> bytes:
    """Return the example's master secret, read from its source."""
    text = (EXAMPLE / "secret" / "keys.c").read_text()
    body = text.split("master_secret[32] = {")[1].split("}")[0]
    return bytes(int(number, 16) for number in body.replace("\n", " ").split(",") if number.strip())


def revoke_while_running(story: Story, site: Site, program: PublicProgram, licence: str) -> None:
    """Revoke the licence under a running program and see its next call refused."""
    start = time.monotonic()
    site.cafe("marketplace", "licence", "revoke", licence)
    while program.ask(LINES[0]):
        if time.monotonic() - start > 5:
            raise DemoError("the revoked enclave goes on answering")
        time.sleep(0.01)
    took = time.monotonic() - start
    story.check(f"licence revoked while running, {took:.2f} s", holds=True, found=program.end())


def tell_story(site: Site, story: Story) -> None:
    """Run the whole demo on a fresh site."""
    story.chapter("Start a software TPM, the SBS and an agent; enrol the host; build and push examples/totp")
    out = site.folder / "totp"
    built = site.set_up(EXAMPLE, out)
    program = build_program(built, out)
    story.say(f"         host {site.host_id}, approved by its TPM's endorsement key; policy: its PCRs of now")
    story.say(f"         SecretBinaryID {built['secret_binary_id']}")

    story.chapter("Refusal 1: no licence")
    refused(story, "no licence", program, site)

    story.chapter("Issue a licence and run the public program")
    licence = site.issue_licence(APP)
    site.wait_quote_expired()
    story.show_steps(on=True)
    running = PublicProgram(program, site)
    first = running.ask(LINES[0])
    story.wait_for_steps("deployment", range(1, 12))
    story.wait_for_steps("loading", range(1, 6))
    story.show_steps(on=False)
    story.check("the first call", holds=first == expected_codes()[0], found=first)
    show_codes(story, running)

    story.chapter("Memory scan, the public program still running")
    scan_memory(story, site, running, built, out)

    story.chapter("Refusal 2: the licence is revoked while the program runs")
    revoke_while_running(story, site, running, licence)

    story.chapter("Refusal 3: one bit of a stored chunk flipped")
    site.issue_licence(APP)
    site.flip_stored_byte()
    refused(story, "changed chunk", program, site)

    story.chapter("Refusal 4: PCR 14 extended, as other software would have")
    site.extend_pcr(MEASURED_PCR)
    refused(story, "other software", program, site)


def main() -> int:
    """Run the demo; exit 0 if everything held."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--backend", choices=("auto", "kvm", "emulator"), default="auto")
    story, backend = Story(), parser.parse_args().backend
    if backend == "auto" and not os.access("/dev/kvm", os.R_OK | os.W_OK):
        story.say("no usable /dev/kvm: the enclave runs in the emulator")
    with tempfile.TemporaryDirectory(prefix="cafe-") as folder, Services() as services:
        try:
            tell_story(Site(Path(folder), services, story.listen, backend), story)
        except (DemoError, subprocess.SubprocessError) as error:
            print(f"\nthe demo failed: {error}", file=sys.stderr)
            for log in sorted(Path(folder).glob("*.log")):
                print(f"--- {log.name}\n{log.read_text(errors='replace')[-1500:]}", file=sys.stderr)
            return 1
    story.chapter("Everything held; all programs have ended")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
