"""The public areas the agent asks the TPM for."""

from __future__ import annotations

from tpm2_pytss.constants import TPM2_ALG, TPMA_OBJECT
from tpm2_pytss.types import TPM2B_PUBLIC, TPM2B_PUBLIC_KEY_RSA, TPMT_PUBLIC, TPMU_PUBLIC_ID

EK_HANDLE = 0x81010001
"""Where manufacturers and tpm2-tools keep the RSA endorsement key (TCG provisioning guidance, 7.8)."""

_EK_POLICY = bytes.fromhex("837197674484b3f81a90cc8d46a5d724fd52d76e06520b64f2a1da1b331469aa")
"""PolicySecret(TPM_RH_ENDORSEMENT) with SHA-256 (TCG EK credential profile 2.6, B.6.2)."""

_EK_ATTRIBUTES = (
    TPMA_OBJECT.FIXEDTPM
    | TPMA_OBJECT.FIXEDPARENT
    | TPMA_OBJECT.SENSITIVEDATAORIGIN
    | TPMA_OBJECT.ADMINWITHPOLICY
    | TPMA_OBJECT.RESTRICTED
    | TPMA_OBJECT.DECRYPT
)
_AK_ATTRIBUTES = (
    TPMA_OBJECT.FIXEDTPM
    | TPMA_OBJECT.FIXEDPARENT
    | TPMA_OBJECT.SENSITIVEDATAORIGIN
    | TPMA_OBJECT.USERWITHAUTH
    | TPMA_OBJECT.RESTRICTED
    | TPMA_OBJECT.SIGN_ENCRYPT
)


def ek_template() -> TPM2B_PUBLIC:
    """Template L-1, RSA-2048 (TCG EK credential profile 2.6, B.3.3): the key the manufacturer certified."""
    area = TPMT_PUBLIC.parse("rsa2048:aes128cfb", _EK_ATTRIBUTES, "sha256", _EK_POLICY)
    area.unique = TPMU_PUBLIC_ID(rsa=TPM2B_PUBLIC_KEY_RSA(bytes(256)))
    return TPM2B_PUBLIC(publicArea=area)


def ak_template() -> TPM2B_PUBLIC:
    """Return a restricted ECDSA P-256 signing key: it signs only what the TPM itself made."""
    return TPM2B_PUBLIC(publicArea=TPMT_PUBLIC.parse("ecc256:ecdsa-sha256:null", _AK_ATTRIBUTES, "sha256"))


def is_default_ek(public: TPM2B_PUBLIC) -> bool:
    """Tell whether a persistent key was made from :func:`ek_template`."""
    area, template = public.publicArea, ek_template().publicArea
    if area.type != TPM2_ALG.RSA:
        return False
    area.unique = template.unique
    return bool(area.marshal() == template.marshal())
