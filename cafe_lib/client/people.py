"""What people ask: JSON there and back, with an API key."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Final
from urllib.parse import quote

from cafe_lib.client.connection import JSON, OCTETS, Call, Connection
from cafe_lib.errors import MalformedError
from cafe_lib.wire.limits import MAX_POLICY_BYTES

MAX_ANSWER_BYTES: Final = 16 * 1024 * 1024
PAGE_ITEMS: Final = 500
MAX_PAGES: Final = 10_000

Object = Mapping[str, object]


def parse_object(body: bytes) -> dict[str, object]:
    """Return a JSON object; raises MalformedError."""
    try:
        value = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise MalformedError("the SBS did not answer with JSON") from error
    if not isinstance(value, dict):
        raise MalformedError("the SBS did not answer with a JSON object")
    return value


def parse_page(body: bytes) -> tuple[list[dict[str, object]], str | None]:
    """Return the items of a list and where the next page begins; raises MalformedError."""
    page = parse_object(body)
    items, following = page.get("items"), page.get("next")
    if not isinstance(items, list) or not all(isinstance(item, dict) for item in items):
        raise MalformedError("the SBS did not answer with a list of objects")
    if following is not None and not isinstance(following, str):
        raise MalformedError("the SBS did not say where the next page begins")
    return items, following


class PeopleCalls(Connection):
    """Every method blocks; it raises TransportError, or the typed error of the SBS's refusal."""

    def _send(self, method: str, path: str, body: Object | None = None) -> dict[str, object]:
        content = None if body is None else json.dumps(body).encode()
        return parse_object(self.ask(Call(method, path, MAX_ANSWER_BYTES, JSON, content)))

    def _delete(self, path: str) -> None:
        self.ask(Call("DELETE", path, MAX_ANSWER_BYTES))

    def _list(self, path: str, query: Mapping[str, str | int] | None = None) -> list[dict[str, object]]:
        """Read every page."""
        items: list[dict[str, object]] = []
        asked = {"limit": PAGE_ITEMS, **(query or {})}
        for _ in range(MAX_PAGES):
            page, following = parse_page(self.ask(Call("GET", path, MAX_ANSWER_BYTES, query=asked)))
            items += page
            if following is None:
                return items
            asked["after"] = following
        raise MalformedError("the SBS's list does not end")

    # ---------------------------------------------------------------- the SBS itself

    def keys(self) -> dict[str, object]:
        """Return the public keys of the SBS; needs no API key."""
        return self._send("GET", "/v1/keys")

    def health(self) -> dict[str, object]:
        """Return how the SBS feels; needs no API key."""
        return self._send("GET", "/healthz")

    # ---------------------------------------------------------------- identities

    def create_identity(self, body: Object) -> dict[str, object]:
        """Create an identity; its API key is in this answer and never shown again."""
        return self._send("POST", "/v1/identities", body)

    def identities(self) -> list[dict[str, object]]:
        """Return every identity."""
        return self._list("/v1/identities")

    def delete_identity(self, identity_id: str) -> None:
        """End an identity: its API key stops working."""
        self._delete(f"/v1/identities/{_part(identity_id)}")

    # ---------------------------------------------------------------- releases

    def push_release(self, package: Iterator[bytes], package_bytes: int) -> dict[str, object]:
        """Upload a sealed package as it is read; return the release."""
        call = Call("POST", "/v1/releases", MAX_ANSWER_BYTES, OCTETS, package, package_bytes)
        return parse_object(self.ask(call))

    def releases(self) -> list[dict[str, object]]:
        """Return every release the caller may see."""
        return self._list("/v1/releases")

    def release(self, secret_binary_id: str) -> dict[str, object]:
        """Return one release."""
        return self._send("GET", f"/v1/releases/{_part(secret_binary_id)}")

    def revoke_release(self, secret_binary_id: str) -> dict[str, object]:
        """End a release: its leases end, and no grant is made of it again."""
        return self._send("POST", f"/v1/releases/{_part(secret_binary_id)}/revocation")

    # ---------------------------------------------------------------- VMs and licences

    def register_vm(self, body: Object) -> dict[str, object]:
        """Say which host a VM runs on, and whose it is."""
        return self._send("POST", "/v1/vms", body)

    def vms(self) -> list[dict[str, object]]:
        """Return every VM the caller may see."""
        return self._list("/v1/vms")

    def remove_vm(self, vm_id: str) -> None:
        """Forget a VM; its leases end."""
        self._delete(f"/v1/vms/{_part(vm_id)}")

    def issue_licence(self, body: Object) -> dict[str, object]:
        """Issue a licence."""
        return self._send("POST", "/v1/licences", body)

    def licences(self) -> list[dict[str, object]]:
        """Return every licence the caller may see."""
        return self._list("/v1/licences")

    def licence(self, licence_id: str) -> dict[str, object]:
        """Return one licence."""
        return self._send("GET", f"/v1/licences/{_part(licence_id)}")

    def revoke_licence(self, licence_id: str) -> dict[str, object]:
        """End a licence and its leases."""
        return self._send("POST", f"/v1/licences/{_part(licence_id)}/revocation")

    # ---------------------------------------------------------------- hosts, policy, audit

    def approve_host(self, body: Object) -> dict[str, object]:
        """Let the host with this endorsement key enrol under this name."""
        return self._send("POST", "/v1/approvals", body)

    def approvals(self) -> list[dict[str, object]]:
        """Return every approval, used or not."""
        return self._list("/v1/approvals")

    def hosts(self) -> list[dict[str, object]]:
        """Return every enrolled host."""
        return self._list("/v1/hosts")

    def revoke_host(self, host_id: str) -> dict[str, object]:
        """End a host's enrolment, its sessions and its leases."""
        return self._send("POST", f"/v1/hosts/{_part(host_id)}/revocation")

    def policy(self) -> dict[str, object]:
        """Return the policy in force."""
        return parse_object(self.ask(Call("GET", "/v1/policy", MAX_POLICY_BYTES * 2)))

    def set_policy(self, document: bytes) -> dict[str, object]:
        """Put a policy in force, given as its JSON text."""
        return parse_object(self.ask(Call("PUT", "/v1/policy", MAX_ANSWER_BYTES, JSON, document)))

    def audit(self, query: Mapping[str, str | int]) -> list[dict[str, object]]:
        """Return audit records, oldest first."""
        return self._list("/v1/audit", query)


def _part(name: str) -> str:
    """Return a path segment; a name cannot become another path."""
    if not name or name in (".", ".."):
        raise MalformedError(f"{name!r} is not an id")
    return quote(name, safe="")
