"""Exit codes of every command: 0 done, 1 refused, 2 unusable input, 3 network or peer, 4 this machine."""

from __future__ import annotations

from typing import Final

from cafe_lib.errors import (
    BuildError,
    CafeError,
    EnclaveError,
    HostError,
    ImageError,
    InterfaceError,
    LeakError,
    ProtocolError,
    TransportError,
)

REFUSED, UNUSABLE, TRANSPORT, HOST = 1, 2, 3, 4
_EXIT_CODES: Final[tuple[tuple[type[CafeError], int], ...]] = (
    (LeakError, REFUSED),
    (BuildError, UNUSABLE),
    (ProtocolError, UNUSABLE),
    (ImageError, UNUSABLE),
    (InterfaceError, UNUSABLE),
    (TransportError, TRANSPORT),
    (HostError, HOST),
    (EnclaveError, HOST),
    (CafeError, REFUSED),
)
"""Most specific first."""


def exit_code(error: CafeError) -> int:
    """Return what a shell learns of an error."""
    return next(code for kind, code in _EXIT_CODES if isinstance(error, kind))
