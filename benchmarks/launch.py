"""launch_local: from launch request to ready with SBS, agent and software TPM on this machine."""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path

from figures import Figure
from local import BUILD, HERE

sys.path.insert(0, str(HERE.parent / "examples" / "demo"))
from demo import build_program
from local_site import Site
from processes import Event, Services, run_json

_EXAMPLE = HERE.parent / "examples" / "totp"


class Timeline:
    """Collects how long each step of the paper took, launch by launch."""

    def __init__(self) -> None:
        self.steps: dict[str, list[float]] = defaultdict(list)

    def listen(self, event: Event) -> None:
        """Take one event of SBS or agent."""
        if event.get("event") == "step":
            name = f"{event['phase']} {event['step']:2} {event['title']}"
            self.steps[name].append(float(event["ms"]))


def measure_launch(runs: int) -> list[Figure]:
    """Start a program ``4 * runs`` times; each launches, calls once, and ends."""
    timeline, took, asked = Timeline(), [], []
    with tempfile.TemporaryDirectory(prefix="cafe-") as folder, Services() as services:
        site = Site(Path(folder), services, timeline.listen)
        built = site.set_up(_EXAMPLE, BUILD / "launch")
        program = build_program(built, BUILD / "launch")
        site.issue_licence("acme/totp", seats=50)
        for run in range(4 * runs + 1):
            start = time.perf_counter()
            command = [str(program), "code", "rfc6238", "-t", "59", "-d", "8"]
            subprocess.run(command, check=True, env=site.guest_env(), capture_output=True)
            if run:  # the first launch also opens the session
                took.append((time.perf_counter() - start) * 1e3)
            start = time.perf_counter()
            run_json("cafe-agent", "ek", "--tcti", site.tcti)
            asked.append((time.perf_counter() - start) * 1e3)
    for name, spent in sorted(timeline.steps.items()):
        print(f"  {name:<62} {statistics.median(spent):8.2f} ms, {len(spent)} times", file=sys.stderr)
    what = "start of a Python command that reads the TPM's EK"
    value, baseline = statistics.median(took), statistics.median(asked)
    slowest = sorted(timeline.steps, key=lambda name: -statistics.median(timeline.steps[name]))[:4]
    parts = ", ".join(f"{name}: {statistics.median(timeline.steps[name]):.1f} ms" for name in slowest)
    note = f"start of the program to its end, one call; of which {parts}"
    return [Figure("launch_local", value, "ms", baseline, what, len(took), "auto", note)]
