"""Enrolment: a host shows that its attestation key lives in the TPM that the operator approved."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, ClassVar

from cafe_lib.wire import limits
from cafe_lib.wire.envelope import MacBody
from cafe_lib.wire.schema import Blob, Bytes32, Bytes64, Id, Message, Name

TpmPublic = Annotated[bytes, Blob(2, limits.MAX_TPM_PUBLIC_BYTES)]
TpmCredential = Annotated[bytes, Blob(2, limits.MAX_TPM_CREDENTIAL_BYTES)]


@dataclass(frozen=True, slots=True)
class EnrolmentRequest(Message):
    """Host to SBS: its keys. `ek_public` and `ak_public` are TPM2B_PUBLIC, `host_key` is Ed25519."""

    KIND: ClassVar[int] = 16

    name: Name
    ek_public: TpmPublic
    ak_public: TpmPublic
    host_key: Bytes32
    nonce: Bytes32


@dataclass(frozen=True, slots=True)
class EnrolmentChallenge(Message):
    """SBS to host: TPM2B_ID_OBJECT and TPM2B_ENCRYPTED_SECRET for TPM2_ActivateCredential."""

    KIND: ClassVar[int] = 17

    enrolment_id: Id
    credential_blob: TpmCredential
    encrypted_secret: TpmCredential


@dataclass(frozen=True, slots=True)
class EnrolmentProof(Message):
    """Host to SBS: it has the activation secret and the host key; see `keys.enrolment_proof`."""

    KIND: ClassVar[int] = 18

    enrolment_id: Id
    proof: Bytes32 = field(repr=False)
    host_key_signature: Bytes64


@dataclass(frozen=True, slots=True)
class EnrolmentResult(MacBody):
    """SBS to host, under the activation secret: its id, and the SBS root key (Ed25519) to pin."""

    KIND: ClassVar[int] = 19
    LABEL: ClassVar[str] = "enrolment result"

    host_id: Id
    sbs_root: Bytes32
