"""A real software TPM for the evidence tests, and a key outside any TPM that forges what a TPM would sign."""

from __future__ import annotations

import hashlib
import os
import struct
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

os.environ.setdefault("TSS2_LOG", "all+NONE")  # read when the library loads; errors come as exceptions

from tpm2_pytss.constants import ESYS_TR, TPM2_ALG, TPM2_SE, TPMA_OBJECT
from tpm2_pytss.ESAPI import ESAPI
from tpm2_pytss.types import (
    TPM2B_ENCRYPTED_SECRET,
    TPM2B_ID_OBJECT,
    TPM2B_PUBLIC,
    TPM2B_SENSITIVE_CREATE,
    TPML_PCR_SELECTION,
    TPMS_PCR_SELECTION,
    TPMT_PUBLIC,
    TPMT_SIG_SCHEME,
    TPMT_SYM_DEF,
)

from cafe_lib.evidence import ak, tpm
from cafe_lib.evidence.quote import QuoteEvidence

PcrValues = tuple[tuple[int, int, bytes], ...]
EK_POLICY = bytes.fromhex("837197674484b3f81a90cc8d46a5d724fd52d76e06520b64f2a1da1b331469aa")
SELECTION = ((tpm.ALG_SHA256, (0, 7, 11)),)
QUALIFYING = hashlib.sha256(b"asked").digest()
VALUES = tuple((tpm.ALG_SHA256, index, hashlib.sha256(b"pcr %d" % index).digest()) for index in (0, 7, 11))


@pytest.fixture(scope="session")
def swtpm() -> Iterator[str]:
    """Start swtpm on an empty state; give the TCTI string that reaches it."""
    with tempfile.TemporaryDirectory(prefix="cafe-") as directory:
        address = Path(directory) / "tpm"
        command = [
            "swtpm", "socket", "--tpm2",
            "--tpmstate", f"dir={directory}",
            "--server", f"type=unixio,path={address}",
            "--ctrl", f"type=unixio,path={address}.ctrl",
            "--flags", "not-need-init,startup-clear",
        ]  # fmt: skip
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            end = time.monotonic() + 10
            while not address.exists():
                assert process.poll() is None, "swtpm ended"
                assert time.monotonic() < end, "swtpm did not open its socket"
                time.sleep(0.01)
            yield f"swtpm:path={address}"
        finally:
            process.terminate()
            process.wait(10)


class RealTpm:
    """swtpm with two EKs and two AKs (each RSA and ECC); `keys` are their public areas and names."""

    def __init__(self, esapi: ESAPI) -> None:
        self._esapi = esapi
        self._handles: dict[str, ESYS_TR] = {}
        self.keys: dict[str, bytes] = {}
        born = TPMA_OBJECT.FIXEDTPM | TPMA_OBJECT.FIXEDPARENT | TPMA_OBJECT.SENSITIVEDATAORIGIN
        decrypt = born | TPMA_OBJECT.ADMINWITHPOLICY | TPMA_OBJECT.RESTRICTED | TPMA_OBJECT.DECRYPT
        sign = born | TPMA_OBJECT.USERWITHAUTH | TPMA_OBJECT.RESTRICTED | TPMA_OBJECT.SIGN_ENCRYPT
        self._create("ek_rsa", "rsa2048:aes128cfb", decrypt, EK_POLICY)
        self._create("ek_ecc", "ecc256:aes128cfb", decrypt, EK_POLICY)
        self._create("ak", "ecc256:ecdsa-sha256:null", sign, b"")
        self._create("other_ak", "rsa2048:rsassa-sha256:null", sign, b"")

    def _create(self, name: str, algorithm: str, attributes: TPMA_OBJECT, policy: bytes) -> None:
        template = TPM2B_PUBLIC(publicArea=TPMT_PUBLIC.parse(algorithm, attributes, "sha256", policy))
        handle, public, *_ = self._esapi.create_primary(
            TPM2B_SENSITIVE_CREATE(), template, ESYS_TR.ENDORSEMENT
        )
        self._handles[name] = self._esapi.evict_control(
            ESYS_TR.OWNER, handle, 0x81000100 + len(self._handles)
        )
        self._esapi.flush_context(handle)
        self.keys[name] = bytes(public.marshal())
        self.keys[f"{name}_name"] = bytes(public.get_name())

    def activate(self, ek: str, key: str, blob: bytes, seed: bytes) -> bytes:
        """Run TPM2_ActivateCredential under the EK's policy."""
        symmetric = TPMT_SYM_DEF(algorithm=TPM2_ALG.NULL)
        session = self._esapi.start_auth_session(
            ESYS_TR.NONE, ESYS_TR.NONE, TPM2_SE.POLICY, symmetric, TPM2_ALG.SHA256
        )
        try:
            self._esapi.policy_secret(ESYS_TR.ENDORSEMENT, session, expiration=0)
            credential, _ = TPM2B_ID_OBJECT.unmarshal(blob)
            secret, _ = TPM2B_ENCRYPTED_SECRET.unmarshal(seed)
            handles = self._handles[key], self._handles[ek]
            opened = self._esapi.activate_credential(
                *handles, credential, secret, ESYS_TR.PASSWORD, session2=session
            )
            return bytes(opened)
        finally:
            self._esapi.flush_context(session)

    def quote(self, key: str, extra: bytes, selection: tpm.PcrSelection) -> tuple[bytes, bytes, PcrValues]:
        """Give TPMS_ATTEST, TPMT_SIGNATURE and the values of the PCRs."""
        banks = [TPMS_PCR_SELECTION(hash=TPM2_ALG(alg), pcrs=list(indices)) for alg, indices in selection]
        attest, signature = self._esapi.quote(self._handles[key], TPML_PCR_SELECTION(banks), extra)
        values = []
        for alg, indices in selection:
            for index in indices:
                one = TPML_PCR_SELECTION([TPMS_PCR_SELECTION(hash=TPM2_ALG(alg), pcrs=[index])])
                _, _, digests = self._esapi.pcr_read(one)
                values.append((alg, index, bytes(digests[0])))
        return bytes(attest), bytes(signature.marshal()), tuple(values)

    def certify(self, extra: bytes) -> tuple[bytes, bytes]:
        """Give a genuine attestation of another kind: TPM2_Certify."""
        handle = self._handles["ak"]
        scheme = TPMT_SIG_SCHEME(scheme=TPM2_ALG.NULL)
        attest, signature = self._esapi.certify(
            handle, handle, extra, scheme, session1=ESYS_TR.PASSWORD, session2=ESYS_TR.PASSWORD
        )
        return bytes(attest), bytes(signature.marshal())

    def attest_time(self, extra: bytes) -> tuple[bytes, bytes]:
        """Give a genuine attestation of another kind: TPM2_GetTime."""
        scheme = TPMT_SIG_SCHEME(scheme=TPM2_ALG.NULL)
        attest, signature = self._esapi.get_time(self._handles["ak"], extra, scheme)
        return bytes(attest), bytes(signature.marshal())


@pytest.fixture(scope="session")
def real_tpm(swtpm: str) -> Iterator[RealTpm]:
    with ESAPI(swtpm) as esapi:
        yield RealTpm(esapi)


@pytest.fixture(scope="session")
def tpm_keys(real_tpm: RealTpm) -> dict[str, bytes]:
    """Give the TPM2B_PUBLIC and the name of each key of the real TPM."""
    return real_tpm.keys


def sized(data: bytes) -> bytes:
    return struct.pack(">H", len(data)) + data


@dataclass(frozen=True)
class ForgedQuote:
    """Every part of a TPMS_ATTEST, free to be wrong; `marshal` joins them."""

    magic: bytes = b"\xffTCG"
    kind: int = 0x8018
    signer: bytes = b"\0\x0b" + b"s" * 32
    extra: bytes = QUALIFYING
    clock: bytes = struct.pack(">QIIB", 1000, 5, 6, 1)
    firmware: int = 7
    selection: bytes = struct.pack(">IHB", 1, 0x0B, 3) + bytes((0x81, 0x08, 0))
    digest: bytes = hashlib.sha256(b"".join(digest for _, _, digest in VALUES)).digest()
    trailer: bytes = b""

    def marshal(self) -> bytes:
        head = self.magic + struct.pack(">H", self.kind) + sized(self.signer) + sized(self.extra)
        rest = self.clock + struct.pack(">Q", self.firmware) + self.selection + sized(self.digest)
        return head + rest + self.trailer


@dataclass(frozen=True)
class SoftwareKey:
    """An attestation key of which everything is known, even its private half."""

    private: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey
    scheme: int = tpm.ALG_ECDSA
    hash_alg: int = tpm.ALG_SHA256
    attributes: int = (
        ak.FIXED_TPM
        | ak.FIXED_PARENT
        | ak.SENSITIVE_DATA_ORIGIN
        | ak.USER_WITH_AUTH
        | ak.RESTRICTED
        | ak.SIGN
    )
    name_alg: int = tpm.ALG_SHA256
    overrides: dict[str, int] = field(default_factory=dict)

    def public_bytes(self) -> bytes:
        """Give the TPM2B_PUBLIC."""
        kind = tpm.ALG_ECC if isinstance(self.private, ec.EllipticCurvePrivateKey) else tpm.ALG_RSA
        head = struct.pack(">HHI", kind, self.name_alg, self.attributes) + sized(b"")
        head += struct.pack(">H", tpm.ALG_NULL) + struct.pack(">HH", self.scheme, self.hash_alg)
        numbers = self.private.public_key().public_numbers()
        if isinstance(numbers, rsa.RSAPublicNumbers):
            bits = self.overrides.get("bits", numbers.n.bit_length())
            head += struct.pack(">HI", bits, self.overrides.get("exponent", 0))
            return sized(head + sized(numbers.n.to_bytes(numbers.n.bit_length() // 8, "big")))
        width = (numbers.curve.key_size + 7) // 8
        curve = {"secp256r1": 3, "secp384r1": 4, "secp224r1": 2, "secp521r1": 5}[numbers.curve.name]
        head += struct.pack(">HH", self.overrides.get("curve", curve), tpm.ALG_NULL)
        x, y = self.overrides.get("x", numbers.x), numbers.y
        return sized(head + sized(x.to_bytes(width, "big")) + sized(y.to_bytes(width, "big")))

    @property
    def public(self) -> tpm.Public:
        return tpm.parse_public(self.public_bytes())

    def sign(self, attest: bytes) -> bytes:
        """Give the TPMT_SIGNATURE."""
        head = struct.pack(">HH", self.scheme, self.hash_alg)
        algorithm = {
            4: hashes.SHA1(),  # noqa: S303  forged on purpose
            11: hashes.SHA256(),
            12: hashes.SHA384(),
            13: hashes.SHA512(),
        }[self.hash_alg]
        if isinstance(self.private, rsa.RSAPrivateKey):
            pad = (
                padding.PKCS1v15()
                if self.scheme == tpm.ALG_RSASSA
                else padding.PSS(padding.MGF1(algorithm), 32)
            )
            return head + sized(self.private.sign(attest, pad, algorithm))
        r, s = decode_dss_signature(self.private.sign(attest, ec.ECDSA(algorithm)))
        width = (self.private.key_size + 7) // 8
        return head + sized(r.to_bytes(width, "big")) + sized(s.to_bytes(width, "big"))


@dataclass(frozen=True)
class Forge:
    """Makes evidence for what was asked, and with one part changed."""

    key: SoftwareKey
    rsa_key: SoftwareKey
    selection: tpm.PcrSelection = SELECTION
    qualifying_data: bytes = QUALIFYING
    values: tuple[tuple[int, int, bytes], ...] = VALUES

    def evidence(
        self,
        quote: ForgedQuote | None = None,
        key: SoftwareKey | None = None,
        values: tuple[tuple[int, int, bytes], ...] | None = None,
    ) -> QuoteEvidence:
        """Sign `quote` properly, whatever it says."""
        attest = (quote or ForgedQuote()).marshal()
        return QuoteEvidence(
            attest, (key or self.key).sign(attest), self.values if values is None else values
        )

    def quote(self, **changes: object) -> ForgedQuote:
        """Give the right quote with some parts replaced."""
        return replace(ForgedQuote(), **changes)  # type: ignore[arg-type]


@pytest.fixture(scope="session")
def forge() -> Forge:
    return Forge(
        SoftwareKey(ec.generate_private_key(ec.SECP256R1())),
        SoftwareKey(rsa.generate_private_key(65537, 2048), scheme=tpm.ALG_RSASSA),
    )
