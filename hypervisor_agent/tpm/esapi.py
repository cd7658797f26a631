"""The TPM through tpm2-pytss: the one place that knows the library and its exceptions.

A connection is opened for each operation and closed after it: a software TPM serves one client at a time,
and a resource manager then needs to hold nothing for us. The loaded AK is kept as a saved context, so a
quote costs one context load instead of recreating its parent.
"""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager

os.environ.setdefault("TSS2_LOG", "all+NONE")  # read when the library loads; errors come as exceptions

from tpm2_pytss.constants import ESYS_TR, TPM2_ALG, TPM2_CAP, TPM2_HC, TPM2_SE
from tpm2_pytss.ESAPI import ESAPI
from tpm2_pytss.TSS2_Exception import TSS2_Exception
from tpm2_pytss.types import (
    TPM2B_ENCRYPTED_SECRET,
    TPM2B_ID_OBJECT,
    TPM2B_PRIVATE,
    TPM2B_PUBLIC,
    TPM2B_SENSITIVE_CREATE,
    TPML_DIGEST_VALUES,
    TPML_PCR_SELECTION,
    TPMS_CONTEXT,
    TPMS_PCR_SELECTION,
    TPMT_HA,
    TPMT_SYM_DEF,
    TPMU_HA,
)

from cafe_lib.errors import TpmError
from hypervisor_agent.tpm.port import AttestationKey, PcrValues, Quote, Selection
from hypervisor_agent.tpm.templates import EK_HANDLE, ak_template, ek_template, is_default_ek

_PCR_ATTEMPTS = 5
_PCRS_IN_BANK = 24
_MAX_HANDLES = 64


class EsapiTpm:
    """A TPM behind any TCTI string, such as ``device:/dev/tpmrm0`` or ``swtpm:path=/run/tpm.sock``."""

    def __init__(self, tcti: str) -> None:
        self._tcti = tcti
        self._lock = threading.Lock()
        self._ak_context: tuple[AttestationKey, TPMS_CONTEXT] | None = None
        self._tidy = False

    def endorsement_public(self) -> bytes:
        """See the port."""
        with self._open() as tpm, _endorsement_key(tpm) as (_, public):
            return _marshal(public)

    def create_ak(self) -> AttestationKey:
        """See the port."""
        with self._open() as tpm, _endorsement_key(tpm) as (ek, _):
            with _ek_session(tpm) as session:
                private, public, *_ = tpm.create(
                    ek, TPM2B_SENSITIVE_CREATE(), ak_template(), session1=session
                )
            return AttestationKey(_marshal(public), _marshal(private))

    def activate_credential(self, ak: AttestationKey, credential: bytes, secret: bytes) -> bytes:
        """See the port."""
        with (
            self._open() as tpm,
            _endorsement_key(tpm) as (ek, _),
            _loaded_ak(tpm, ek, ak) as handle,
            _ek_session(tpm) as session,
        ):
            blob, _ = TPM2B_ID_OBJECT.unmarshal(credential)
            encrypted, _ = TPM2B_ENCRYPTED_SECRET.unmarshal(secret)
            return bytes(
                tpm.activate_credential(handle, ek, blob, encrypted, ESYS_TR.PASSWORD, session2=session)
            )

    def prepare(self, ak: AttestationKey) -> None:
        """See the port."""
        try:
            with self._open() as tpm, self._cached_ak(tpm, ak):
                pass
        except TpmError as error:
            hint = error.hint or "if the TPM was replaced or cleared, enrol this host again"
            raise TpmError(error.detail, hint=hint) from error

    def quote(self, ak: AttestationKey, qualifying_data: bytes, selection: Selection) -> Quote:
        """See the port. PCRs extended in between are noticed by the update counter, and it starts again."""
        with self._open() as tpm, self._cached_ak(tpm, ak) as handle:
            wanted = _pcr_selection(selection)
            for _ in range(_PCR_ATTEMPTS):
                before, values = _read_pcrs(tpm, selection)
                attest, signature = tpm.quote(handle, wanted, qualifying_data)
                after, _ = _read_pcrs(tpm, selection)
                if before == after:
                    return Quote(bytes(attest), _marshal(signature), values)
        raise TpmError("the PCRs keep changing", hint="wait until the machine has settled")

    def read_pcrs(self, selection: Selection) -> PcrValues:
        """See the port."""
        with self._open() as tpm:
            for _ in range(_PCR_ATTEMPTS):
                before, values = _read_pcrs(tpm, selection)
                if _read_pcrs(tpm, selection)[0] == before:
                    return values
        raise TpmError("the PCRs keep changing", hint="wait until the machine has settled")

    def extend_pcr(self, index: int, digest: bytes) -> None:
        """See the port."""
        if not 0 <= index < _PCRS_IN_BANK:
            raise TpmError(f"there is no PCR {index}")
        if len(digest) != hashlib.sha256().digest_size:
            raise TpmError("a PCR is extended with a SHA-256 digest")
        with self._open() as tpm:
            value = TPMT_HA(hashAlg=TPM2_ALG.SHA256, digest=TPMU_HA(sha256=digest))
            tpm.pcr_extend(ESYS_TR(index), TPML_DIGEST_VALUES([value]))

    @contextmanager
    def _open(self) -> Iterator[ESAPI]:
        with self._lock, _mapped(self._tcti), ESAPI(self._tcti) as tpm:
            if not self._tidy:
                _flush_leftovers(tpm)
                self._tidy = True
            yield tpm

    @contextmanager
    def _cached_ak(self, tpm: ESAPI, ak: AttestationKey) -> Iterator[ESYS_TR]:
        handle = self._restore_ak(tpm, ak)
        if handle is None:
            with _endorsement_key(tpm) as (ek, _), _loaded_ak(tpm, ek, ak) as fresh:
                self._ak_context = (ak, tpm.context_save(fresh))
                yield fresh
            return
        try:
            yield handle
        finally:
            tpm.flush_context(handle)

    def _restore_ak(self, tpm: ESAPI, ak: AttestationKey) -> ESYS_TR | None:
        if self._ak_context is None or self._ak_context[0] != ak:
            return None
        try:
            return tpm.context_load(self._ak_context[1])
        except TSS2_Exception:  # the TPM was reset since: its contexts are void, the key blob is not
            self._ak_context = None
            return None


@contextmanager
def _mapped(tcti: str) -> Iterator[None]:
    try:
        yield
    except TSS2_Exception as error:
        hint = "is the TPM there, and may this user open it?" if "tcti" in str(error) else ""
        raise TpmError(f"TPM at {tcti}: {error}", hint=hint) from error
    except (ValueError, TypeError, LookupError, RuntimeError) as error:
        raise TpmError(f"TPM at {tcti}: {error}") from error


def _flush_leftovers(tpm: ESAPI) -> None:
    """Free what a killed agent left loaded. Behind a resource manager there is never anything to see."""
    for first in (TPM2_HC.TRANSIENT_FIRST, TPM2_HC.LOADED_SESSION_FIRST):
        _, capability = tpm.get_capability(TPM2_CAP.HANDLES, first, _MAX_HANDLES)
        for handle in capability.data.handles:
            tpm.flush_context(tpm.tr_from_tpmpublic(int(handle)))


@contextmanager
def _endorsement_key(tpm: ESAPI) -> Iterator[tuple[ESYS_TR, TPM2B_PUBLIC]]:
    persistent = _persistent_ek(tpm)
    if persistent is not None:
        yield persistent
        return
    handle, public, *_ = tpm.create_primary(TPM2B_SENSITIVE_CREATE(), ek_template(), ESYS_TR.ENDORSEMENT)
    try:
        yield handle, public
    finally:
        tpm.flush_context(handle)


def _persistent_ek(tpm: ESAPI) -> tuple[ESYS_TR, TPM2B_PUBLIC] | None:
    _, capability = tpm.get_capability(TPM2_CAP.HANDLES, EK_HANDLE, 1)
    if EK_HANDLE not in [int(handle) for handle in capability.data.handles]:
        return None
    handle = tpm.tr_from_tpmpublic(EK_HANDLE)
    public, *_ = tpm.read_public(handle)
    copy, _ = TPM2B_PUBLIC.unmarshal(public.marshal())
    return (handle, public) if is_default_ek(copy) else None


@contextmanager
def _ek_session(tpm: ESAPI) -> Iterator[ESYS_TR]:
    """Satisfy the EK's policy: knowledge of the endorsement hierarchy's (empty) authorisation."""
    session = tpm.start_auth_session(
        ESYS_TR.NONE, ESYS_TR.NONE, TPM2_SE.POLICY, TPMT_SYM_DEF(algorithm=TPM2_ALG.NULL), TPM2_ALG.SHA256
    )
    try:
        tpm.policy_secret(ESYS_TR.ENDORSEMENT, session, expiration=0)
        yield session
    finally:
        tpm.flush_context(session)


@contextmanager
def _loaded_ak(tpm: ESAPI, ek: ESYS_TR, ak: AttestationKey) -> Iterator[ESYS_TR]:
    private, _ = TPM2B_PRIVATE.unmarshal(ak.private)
    public, _ = TPM2B_PUBLIC.unmarshal(ak.public)
    with _ek_session(tpm) as session:
        handle = tpm.load(ek, private, public, session1=session)
    try:
        yield handle
    finally:
        tpm.flush_context(handle)


def _read_pcrs(tpm: ESAPI, selection: Selection) -> tuple[int, PcrValues]:
    """Return the update counter and the values; a TPM returns at most eight in one answer."""
    values: dict[tuple[int, int], bytes] = {}
    counter = -1
    for algorithm, indices in selection:
        missing = list(indices)
        while missing:
            now, selected, digests = tpm.pcr_read(_pcr_selection(((algorithm, tuple(missing)),)))
            got = _selected(selected)
            if not got or len(got) != len(digests) or counter not in (-1, now):
                raise TpmError(f"PCR bank {algorithm:#x} cannot be read: {missing}")
            counter = int(now)
            values.update(((algorithm, i), bytes(d)) for i, d in zip(got, digests, strict=True))
            missing = [index for index in missing if index not in got]
    return counter, tuple((alg, index, values[alg, index]) for alg, indices in selection for index in indices)


def _pcr_selection(selection: Selection) -> TPML_PCR_SELECTION:
    if any(not 0 <= index < _PCRS_IN_BANK for _, indices in selection for index in indices):
        raise TpmError("a PCR index is out of range")
    return TPML_PCR_SELECTION(
        [TPMS_PCR_SELECTION(hash=TPM2_ALG(alg), pcrs=indices) for alg, indices in selection]
    )


def _selected(selection: TPML_PCR_SELECTION) -> list[int]:
    mask = b"".join(bytes(bank.pcrSelect)[: bank.sizeofSelect] for bank in selection)
    return [i for i in range(len(mask) * 8) if mask[i // 8] >> (i % 8) & 1]


def _marshal(structure: TPM2B_PUBLIC | TPM2B_PRIVATE) -> bytes:
    return bytes(structure.marshal())
