"""Sessions and deployments against an SBS in memory: what is believed, what is wiped, what is given back."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from agent_sbs import INTERFACE, LEASE_ID, FakeRelease, FakeSbs, FakeTpm, make_release
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from cafe_lib import errors
from hypervisor_agent.deploy import SbsDeployer
from hypervisor_agent.release import Order
from hypervisor_agent.session import Attester, SessionKeeper
from hypervisor_agent.steps import Steps


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture(scope="module")
def release() -> FakeRelease:
    return make_release(code_pages=40)


@pytest.fixture
def sbs(release: FakeRelease) -> FakeSbs:
    return FakeSbs(release)


@pytest.fixture
def tpm() -> FakeTpm:
    return FakeTpm()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def deployer(sbs: FakeSbs, tpm: FakeTpm, clock: Clock) -> SbsDeployer:
    attester = Attester(sbs.identity(), tpm, sbs, Steps(), None)
    return SbsDeployer(sbs, attester, SessionKeeper(attester, clock), Steps(), clock=clock)


@pytest.fixture
def order(release: FakeRelease) -> Order:
    return Order("vm1", release.secret_binary_id, INTERFACE)


def enclave_memories() -> list[str]:
    links = []
    for entry in Path("/proc/self/fd").iterdir():
        with suppress(FileNotFoundError):  # the listing's own descriptor
            links.append(str(entry.readlink()))
    return [link for link in links if "cafe-enclave" in link]


@pytest.fixture(autouse=True)
def nothing_left() -> Iterator[None]:
    yield
    assert enclave_memories() == []


def test_a_deployment_gives_a_loaded_enclave_and_its_lease(deployer: SbsDeployer, order: Order) -> None:
    deployment = deployer.deploy(order, threading.Event())
    lease = deployment.release.lease
    assert (lease.lease_id, lease.sent_at, lease.seconds) == (LEASE_ID, 1000.0, 30)
    assert deployment.release.name == "publisher/app@1"
    assert len(enclave_memories()) == 1
    deployment.discard()
    again = deployment.release.load()
    assert again.image_bytes == deployment.plan.image_bytes
    again.memory.wipe()


def test_one_session_serves_many_launches(deployer: SbsDeployer, order: Order, sbs: FakeSbs) -> None:
    for _ in range(3):
        deployer.deploy(order, threading.Event()).discard()
    assert sbs.sessions == 1
    assert len({request.request_id for request in sbs.requests}) == 3


def test_a_session_is_made_anew_when_its_quote_is_too_old(
    deployer: SbsDeployer, order: Order, sbs: FakeSbs, clock: Clock
) -> None:
    for now, sessions in ((1000.0, 1), (1299.9, 1), (1300.0, 2)):
        clock.now = now
        deployer.deploy(order, threading.Event()).discard()
        assert sbs.sessions == sessions


@pytest.mark.case("A35")
def test_a_session_is_made_anew_when_a_pcr_has_changed(
    deployer: SbsDeployer, order: Order, sbs: FakeSbs, tpm: FakeTpm
) -> None:
    deployer.deploy(order, threading.Event()).discard()
    tpm.pcr = b"\1" * 32
    sbs.verdict = "policy"
    with pytest.raises(errors.PolicyError):
        deployer.deploy(order, threading.Event())
    assert sbs.calls.count("deploy") == 1


def test_a_session_the_sbs_forgot_is_made_anew_once(
    deployer: SbsDeployer, order: Order, sbs: FakeSbs
) -> None:
    sbs.refuse["deploy"] = [errors.SessionError("expired")]
    deployer.deploy(order, threading.Event()).discard()
    assert sbs.sessions == 2
    sbs.refuse["deploy"] = [errors.SessionError("expired"), errors.SessionError("expired")]
    with pytest.raises(errors.SessionError):
        deployer.deploy(order, threading.Event())


def test_a_lost_connection_is_tried_again_with_the_same_request(
    deployer: SbsDeployer, order: Order, sbs: FakeSbs
) -> None:
    sbs.refuse["stream"] = [errors.TransportError("cut")]
    deployer.deploy(order, threading.Event()).discard()
    assert [request.request_id for request in sbs.requests] == [sbs.requests[0].request_id] * 2
    assert sbs.ended == []


@pytest.mark.parametrize("verdict", ["policy", "quote", "session", "no_such_code"])
def test_a_refusal_releases_nothing(deployer: SbsDeployer, order: Order, sbs: FakeSbs, verdict: str) -> None:
    sbs.verdict = verdict
    with pytest.raises((errors.PolicyError, errors.VerificationError)):
        deployer.deploy(order, threading.Event())
    assert "deploy" not in sbs.calls


@pytest.mark.case("A24")
def test_another_sbs_than_the_pinned_one_gets_no_evidence(
    deployer: SbsDeployer, order: Order, sbs: FakeSbs, tpm: FakeTpm
) -> None:
    sbs.root = Ed25519PrivateKey.generate()
    with pytest.raises(errors.SignatureError):
        deployer.deploy(order, threading.Event())
    assert tpm.quotes == 0


def _flip(index: int, offset: int) -> Callable[[list[bytes]], list[bytes]]:
    def tamper(stream: list[bytes]) -> list[bytes]:
        piece = bytearray(stream[index])
        piece[offset] ^= 1
        stream[index] = bytes(piece)
        return stream

    return tamper


@pytest.mark.case("C01", "C06", "C07")
@pytest.mark.parametrize(
    "tamper",
    [
        pytest.param(_flip(0, 0), id="magic"),
        pytest.param(_flip(0, 20), id="grant nonce"),
        pytest.param(_flip(1, 50), id="grant"),
        pytest.param(_flip(1, -1), id="grant's MAC"),
        pytest.param(_flip(2, 0), id="record type"),
        pytest.param(_flip(2, 9), id="record length"),
        pytest.param(_flip(2, 5000), id="chunk"),
        pytest.param(_flip(2, -1), id="chunk's MAC"),
        pytest.param(_flip(-1, 15), id="count in END"),
        pytest.param(_flip(-1, -1), id="MAC of END"),
        pytest.param(lambda s: s[:-1], id="END missing"),
        pytest.param(lambda s: [*s[:-2], s[-1]], id="last chunk missing"),
        pytest.param(lambda s: s[:2], id="only the grant"),
        pytest.param(lambda s: s[:1], id="only the start"),
        pytest.param(lambda _: [], id="empty"),
        pytest.param(lambda s: [*s[:2], s[3], s[2], *s[4:]], id="chunks swapped"),
        pytest.param(lambda s: [*s[:3], s[2], *s[3:]], id="chunk repeated"),
        pytest.param(lambda s: [*s, s[-1]], id="END repeated"),
        pytest.param(lambda s: [*s, b"\0"], id="trailing byte"),
        pytest.param(lambda s: [b"".join(s)[:-1]], id="one byte short"),
        pytest.param(lambda s: [s[0], *s[2:]], id="no grant"),
    ],
)
def test_a_changed_stream_gives_nothing_and_wipes_all(
    deployer: SbsDeployer, order: Order, sbs: FakeSbs, tamper: Callable[[list[bytes]], list[bytes]]
) -> None:
    sbs.tamper = tamper
    with pytest.raises((errors.ProtocolError, errors.VerificationError)):
        deployer.deploy(order, threading.Event())
    assert enclave_memories() == []
    assert set(sbs.ended) <= {LEASE_ID}


@pytest.mark.case("C04")
def test_a_stream_of_another_launch_is_refused(deployer: SbsDeployer, order: Order, sbs: FakeSbs) -> None:
    kept: list[list[bytes]] = []
    sbs.tamper = lambda stream: kept.append(stream) or stream
    deployer.deploy(order, threading.Event()).discard()
    sbs.tamper = lambda _: kept[0]
    with pytest.raises(errors.SignatureError):
        deployer.deploy(order, threading.Event())


def test_a_program_of_another_interface_is_refused_and_the_seat_given_back(
    deployer: SbsDeployer, order: Order, sbs: FakeSbs
) -> None:
    with pytest.raises(errors.InterfaceError):
        deployer.deploy(Order("vm1", order.secret_binary_id, b"x" * 32), threading.Event())
    assert sbs.ended == [LEASE_ID]


@pytest.mark.case("B17")
def test_a_guest_that_went_stops_its_deployment(deployer: SbsDeployer, order: Order, sbs: FakeSbs) -> None:
    cancelled = threading.Event()

    def tamper(stream: list[bytes]) -> list[bytes]:
        cancelled.set()
        return stream

    sbs.tamper = tamper
    with pytest.raises(errors.ExitedError):
        deployer.deploy(order, cancelled)


def test_a_renewal_quotes_the_fresh_nonce(
    deployer: SbsDeployer, order: Order, sbs: FakeSbs, clock: Clock, tpm: FakeTpm
) -> None:
    deployer.deploy(order, threading.Event()).discard()
    clock.now = 1010.0
    assert deployer.renew() == (1010.0, ((LEASE_ID, 30),), ())
    sbs.ended_at_renewal = (LEASE_ID,)
    assert deployer.renew() == (1010.0, (), (LEASE_ID,))
    assert tpm.quotes == 3


def test_a_renewal_in_a_session_that_is_over_opens_another(
    deployer: SbsDeployer, order: Order, sbs: FakeSbs
) -> None:
    deployer.deploy(order, threading.Event()).discard()
    sbs.refuse["renewal_challenge"] = [errors.SessionError("the policy has changed")]
    assert deployer.renew()[1] == ((LEASE_ID, 30),)
    assert sbs.sessions == 2
    sbs.refuse["renewal_challenge"] = [errors.SessionError("over"), errors.SessionError("over")]
    with pytest.raises(errors.SessionError):
        deployer.renew()


def test_a_lease_that_cannot_be_given_back_is_left_to_run_out(
    deployer: SbsDeployer, order: Order, sbs: FakeSbs
) -> None:
    deployer.end_lease(LEASE_ID)
    deployer.deploy(order, threading.Event()).discard()
    sbs.refuse["end_lease"] = [errors.TransportError("down")]
    deployer.end_lease(LEASE_ID)
    assert sbs.ended == []
    deployer.end_lease(LEASE_ID)
    assert sbs.ended == [LEASE_ID]


def test_a_lease_is_given_back_however_old_the_quote_is(
    deployer: SbsDeployer, order: Order, sbs: FakeSbs, clock: Clock
) -> None:
    deployer.deploy(order, threading.Event()).discard()
    clock.now += 1e6
    sbs.refuse["end_lease"] = [errors.SessionError("over")]
    deployer.end_lease(LEASE_ID)
    assert sbs.ended == [LEASE_ID]
    assert sbs.sessions == 2


def test_a_busy_sbs_is_not_asked_again_at_once(deployer: SbsDeployer, order: Order, sbs: FakeSbs) -> None:
    sbs.refuse["deploy"] = [errors.BusyError("later"), errors.BusyError("later")]
    with pytest.raises(errors.BusyError):
        deployer.deploy(order, threading.Event())
    assert len(sbs.refuse["deploy"]) == 1
