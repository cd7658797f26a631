"""Hatchling hook: build the VMM, so that a wheel carries it."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class VmmBuildHook(BuildHookInterface):
    """Runs the plain Makefile and marks the wheel as bound to this platform."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Build ``hypervisor_agent/native/cafe-vmm``; an editable install leaves it to ``make native``."""
        if version == "editable":
            return
        subprocess.run(["make", "-C", str(Path(self.root) / "hypervisor_agent" / "vmm")], check=True)
        build_data["pure_python"] = False
        build_data["infer_tag"] = True
