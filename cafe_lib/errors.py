"""Every error the project raises: one tree, one root, one stable code each.

::

    CafeError
    ├── ProtocolError          bytes from outside that are not what the protocol says
    │   ├── MalformedError     they do not parse
    │   ├── VersionError       another version of the format, or an unknown suite
    │   └── LimitError         a length or a count over its bound
    ├── VerificationError      well-formed, but not genuine
    │   ├── SignatureError     a signature or MAC does not verify
    │   ├── QuoteError         the TPM evidence does not show what it must
    │   ├── DigestError        a digest differs from the expected one
    │   └── SessionError       stale, unknown, replayed, or another session's
    ├── PolicyError            genuine, but the policy says no
    ├── LicenceError           no licence, no free seat, expired or revoked
    ├── AccessError            the caller may not do this
    │   ├── UnauthenticatedError
    │   └── ForbiddenError
    ├── NotFoundError
    ├── ConflictError          against the present state: exists already, used already
    ├── ImageError             a secret image that cannot be built or loaded
    ├── InterfaceError         an annotated header that cannot be marshalled
    ├── BuildError             the compiler or the project file said no
    │   └── LeakError          secret bytes in the public artefact
    ├── EnclaveError           a running enclave failed
    │   ├── FaultError         a CPU fault, at an offset in the image
    │   ├── DeadlineError      a call took longer than its deadline
    │   └── ExitedError        the enclave or its VMM has gone
    ├── TransportError         the network or a peer; trying again may help
    │   └── BusyError          the peer has enough to do, or this caller asks too often
    └── HostError              this machine
        ├── TpmError
        └── KvmError

A client is told ``code`` and ``sentence``, both fixed; ``detail`` goes to the log or the local user.
"""

from __future__ import annotations

from typing import ClassVar


class CafeError(Exception):
    """The root. ``detail`` says what happened, ``hint`` what to do about it."""

    code: ClassVar[str] = "error"
    sentence: ClassVar[str] = "The request could not be carried out."
    retryable: ClassVar[bool] = False

    def __init__(self, detail: str = "", *, hint: str = "") -> None:
        super().__init__(detail or self.sentence)
        self.detail = detail or self.sentence
        self.hint = hint


class ProtocolError(CafeError):
    """Bytes from outside that are not what the protocol says."""

    code = "protocol"
    sentence = "The message does not follow the protocol."


class MalformedError(ProtocolError):
    """The bytes do not parse."""

    code = "malformed"
    sentence = "The message could not be parsed."


class VersionError(ProtocolError):
    """Another version of the format, or an unknown suite."""

    code = "version"
    sentence = "The version or suite is not supported."


class LimitError(ProtocolError):
    """A length or a count over its bound."""

    code = "limit"
    sentence = "A length or count is over its limit."


class VerificationError(CafeError):
    """Well-formed, but not genuine."""

    code = "verification"
    sentence = "The message is not genuine."


class SignatureError(VerificationError):
    """A signature or MAC does not verify."""

    code = "signature"
    sentence = "A signature does not verify."


class QuoteError(VerificationError):
    """The TPM evidence does not show what it must; ``step`` names the check that failed."""

    code = "quote"
    sentence = "The TPM evidence was refused."

    def __init__(self, detail: str = "", *, hint: str = "", step: str = "") -> None:
        super().__init__(detail, hint=hint)
        self.step = step


class DigestError(VerificationError):
    """A digest differs from the expected one."""

    code = "digest"
    sentence = "A digest does not match."


class SessionError(VerificationError):
    """Stale, unknown, replayed, or another session's."""

    code = "session"
    sentence = "The session is unknown or no longer valid."


class PolicyError(CafeError):
    """Genuine, but the policy says no."""

    code = "policy"
    sentence = "The policy does not allow this host."


class LicenceError(CafeError):
    """No licence, no free seat, expired or revoked."""

    code = "licence"
    sentence = "No valid licence with a free seat."


class AccessError(CafeError):
    """The caller may not do this."""

    code = "access"
    sentence = "Access is denied."


class UnauthenticatedError(AccessError):
    """No valid credential was presented."""

    code = "unauthenticated"
    sentence = "A valid API key is needed."


class ForbiddenError(AccessError):
    """A valid credential without this right."""

    code = "forbidden"
    sentence = "This identity may not do this."


class NotFoundError(CafeError):
    """The named object does not exist, or not for this caller."""

    code = "not_found"
    sentence = "There is no such object."


class ConflictError(CafeError):
    """Against the present state: exists already, used already."""

    code = "conflict"
    sentence = "The request conflicts with the present state."


class ImageError(CafeError):
    """A secret image that cannot be built or loaded."""

    code = "image"
    sentence = "The secret image is not valid."


class InterfaceError(CafeError):
    """An annotated header that cannot be marshalled."""

    code = "interface"
    sentence = "The interface cannot be marshalled."


class BuildError(CafeError):
    """The compiler or the project file said no."""

    code = "build"
    sentence = "The build failed."


class LeakError(BuildError):
    """Secret bytes were found in the public artefact."""

    code = "leak"
    sentence = "The public artefact contains secret bytes."


class EnclaveError(CafeError):
    """A running enclave failed."""

    code = "enclave"
    sentence = "The enclave failed."


class FaultError(EnclaveError):
    """A CPU fault in secret code."""

    code = "fault"
    sentence = "The secret code faulted."


class DeadlineError(EnclaveError):
    """A call took longer than its deadline."""

    code = "deadline"
    sentence = "The call missed its deadline."


class ExitedError(EnclaveError):
    """The enclave or its VMM has gone."""

    code = "exited"
    sentence = "The enclave has ended."


class TransportError(CafeError):
    """The network or a peer failed; trying again may help."""

    code = "transport"
    sentence = "The peer could not be reached."
    retryable = True


class BusyError(TransportError):
    """The peer has enough to do, or this caller asks too often; try again later."""

    code = "busy"
    sentence = "Too many requests at once; try again later."


class HostError(CafeError):
    """Something this machine lacks, or refused."""

    code = "host"
    sentence = "The host failed."


class TpmError(HostError):
    """The TPM, or the way to it."""

    code = "tpm"
    sentence = "The TPM failed."


class KvmError(HostError):
    """KVM, or the way to it."""

    code = "kvm"
    sentence = "KVM failed."
