"""What the agent asks of a TPM: the port, so that tests and other TPM libraries can stand in its place."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

Selection = tuple[tuple[int, tuple[int, ...]], ...]
"""PCR banks asked for: (TPM_ALG_ID, indices), as in the session offer."""

PcrValues = tuple[tuple[int, int, bytes], ...]
"""(TPM_ALG_ID, index, digest), in the order of the selection."""


@dataclass(frozen=True, slots=True)
class AttestationKey:
    """The AK as the agent keeps it: only this host's TPM can unwrap ``private``."""

    public: bytes
    """TPM2B_PUBLIC."""
    private: bytes
    """TPM2B_PRIVATE, encrypted by the TPM to the endorsement key."""


@dataclass(frozen=True, slots=True)
class Quote:
    """A signed quote with the PCR values it was made over."""

    attest: bytes
    """TPMS_ATTEST, as signed."""
    signature: bytes
    """TPMT_SIGNATURE."""
    pcr_values: PcrValues


class Tpm(Protocol):
    """A TPM 2.0. Every method raises TpmError, blocks, and may be called from any thread."""

    def endorsement_public(self) -> bytes:
        """Return the EK's TPM2B_PUBLIC (RSA-2048, default template of the TCG EK credential profile)."""

    def create_ak(self) -> AttestationKey:
        """Create a restricted signing key (ECDSA P-256, SHA-256) under the endorsement key."""

    def activate_credential(self, ak: AttestationKey, credential: bytes, secret: bytes) -> bytes:
        """Open a TPM2B_ID_OBJECT and TPM2B_ENCRYPTED_SECRET made for this EK and this AK's name."""

    def prepare(self, ak: AttestationKey) -> None:
        """Load the key once and keep it at hand: a wrong TPM shows at once, and the first quote is fast."""

    def quote(self, ak: AttestationKey, qualifying_data: bytes, selection: Selection) -> Quote:
        """Sign the selected PCRs together with ``qualifying_data``."""

    def read_pcrs(self, selection: Selection) -> PcrValues:
        """Read the selected PCRs, all at one moment."""

    def extend_pcr(self, index: int, digest: bytes) -> None:
        """Extend a PCR's SHA-256 bank."""
