"""What is told about an enclave that ended by itself: which code, where in its image, how. Nothing else.

No register, address or byte of memory is in a report: whoever reads the agent's log may not learn the code.
``cafe symbolize`` turns build id and offset into a function and a line, where the debug information is.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass

from cafe_lib.errors import EnclaveError, KvmError
from hypervisor_agent.enclave.outcome import Outcome
from hypervisor_agent.release import Release


@dataclass(frozen=True, slots=True)
class CrashReport:
    """One crash, fit for a log and for people."""

    build_id: str
    """The SecretBinaryID, in hex."""
    offset: str | None
    """Image offset in hex, with 0x; None when the place is unknown or outside the image."""
    kind: str
    """The fault's name, ``deadline``, ``abort``, or what else ended it (``host``, ``exited``)."""
    release: str
    vm: str

    def fields(self) -> dict[str, str | None]:
        """Return what goes into a line of JSON."""
        return asdict(self)

    def __str__(self) -> str:
        """Return the report as ``KIND at BUILD_ID+OFFSET``."""
        return self.kind if self.offset is None else f"{self.kind} at {self.build_id}+{self.offset}"


def report_of(outcome: Outcome, release: Release) -> CrashReport:
    """Return the report of an enclave's end."""
    offset = None if outcome.image_offset is None else hex(outcome.image_offset)
    kind = outcome.vector or outcome.status.name.lower()
    order = release.order
    return CrashReport(order.secret_binary_id.hex(), offset, kind, release.name, order.vm_id)


def failure_of(outcome: Outcome, report: CrashReport) -> EnclaveError | KvmError:
    """Return the outcome's error with no more detail than the report has; a host's own failure stays."""
    return outcome.error if isinstance(outcome.error, KvmError) else type(outcome.error)(str(report))
