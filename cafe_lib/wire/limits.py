"""Every bound of the protocol, in one place; units are in the names. They are part of the protocol."""

from __future__ import annotations

from typing import Final

# Messages
MAX_DEPTH: Final = 8
MAX_MESSAGE_BYTES: Final = 64 * 1024
MAX_EVIDENCE_BYTES: Final = 1024 * 1024
MAX_EVENT_LOG_BYTES: Final = 960 * 1024
MAX_NAME_BYTES: Final = 64
MAX_RELEASE_BYTES: Final = 200
MAX_REASON_BYTES: Final = 64
MAX_SUITES: Final = 8

# Fixed sizes
ID_BYTES: Final = 16
DIGEST_BYTES: Final = 32
NONCE_BYTES: Final = 32
KEY_BYTES: Final = 32
SIGNATURE_BYTES: Final = 64
KEM_PUBLIC_BYTES: Final = 1184 + 32
KEM_PRIVATE_BYTES: Final = 64 + 32
SEALED_SECRET_BYTES: Final = 1088 + 32 + KEY_BYTES + 16

# TPM structures
MAX_TPM_PUBLIC_BYTES: Final = 1024
MAX_TPM_ATTEST_BYTES: Final = 2048
MAX_TPM_SIGNATURE_BYTES: Final = 1024
MAX_TPM_CREDENTIAL_BYTES: Final = 1024
MAX_PCR_BANKS: Final = 4
MAX_PCR_INDEX: Final = 23
MAX_PCR_VALUES: Final = MAX_PCR_BANKS * (MAX_PCR_INDEX + 1)
MIN_PCR_DIGEST_BYTES: Final = 20
MAX_PCR_DIGEST_BYTES: Final = 64

# Packages and the record stream
CHUNK_BYTES: Final = 65536
MAX_CHUNKS: Final = 65536
MAX_MANIFEST_BYTES: Final = 4 * 1024 * 1024
MAX_CONFIDENTIAL_BYTES: Final = 4 * 1024 * 1024
MAX_GRANT_BYTES: Final = MAX_MANIFEST_BYTES + MAX_CONFIDENTIAL_BYTES + MAX_MESSAGE_BYTES
MAX_HELD_RELEASES: Final = 1024
MAX_ITEMS: Final = 2 * MAX_CHUNKS + 1024
"""Values in one message, keys of maps included; the keys and tags of the largest image are the most."""

# Sessions, leases and events
MAX_SESSION_SECONDS: Final = 24 * 3600
MAX_LEASE_SECONDS: Final = 7 * 24 * 3600
MAX_LEASES: Final = 1024
MAX_EVENT_BYTES: Final = MAX_MESSAGE_BYTES

# Policies
MAX_POLICY_BYTES: Final = 64 * 1024
MAX_POLICY_PCRS: Final = 32
MAX_POLICY_VALUES: Final = 256
