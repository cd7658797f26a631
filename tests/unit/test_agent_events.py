"""The revocation stream: genuine, ours and new, or it is not delivered."""

from __future__ import annotations

import threading
import time

import pytest
from agent_sbs import LEASE_ID, FakeSbs, FakeTpm, make_release
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from cafe_lib import errors
from cafe_lib.wire.events import KEEP_ALIVE
from cafe_lib.wire.messages import Revocation
from hypervisor_agent import events
from hypervisor_agent.events import RevocationReader
from hypervisor_agent.session import AttestedSession, Attester, SessionKeeper
from hypervisor_agent.steps import Steps


@pytest.fixture
def sbs() -> FakeSbs:
    return FakeSbs(make_release())


@pytest.fixture
def keeper(sbs: FakeSbs) -> SessionKeeper:
    return SessionKeeper(Attester(sbs.identity(), FakeTpm(), sbs, Steps(), None))


@pytest.fixture
def session(keeper: SessionKeeper) -> AttestedSession:
    return keeper.get()


@pytest.fixture
def delivered() -> list[Revocation]:
    return []


@pytest.fixture
def reader(sbs: FakeSbs, keeper: SessionKeeper, delivered: list[Revocation]) -> RevocationReader:
    return RevocationReader(sbs, keeper, delivered.append)


def test_revocations_are_delivered_in_order_whatever_the_pieces(
    sbs: FakeSbs, session: AttestedSession, reader: RevocationReader, delivered: list[Revocation]
) -> None:
    data = KEEP_ALIVE + sbs.revocation(3) + KEEP_ALIVE + sbs.revocation(7)
    sbs.event_pieces = [[data[:10], data[10:30], data[30:]]]
    reader.follow(session)
    assert [(event.number, event.lease_ids) for event in delivered] == [(3, (LEASE_ID,)), (7, (LEASE_ID,))]


@pytest.mark.parametrize("case", ["forged", "other host", "replayed", "bit flipped", "cut", "endless frame"])
def test_what_is_not_genuine_ours_and_new_is_not_delivered(
    sbs: FakeSbs,
    session: AttestedSession,
    reader: RevocationReader,
    delivered: list[Revocation],
    case: str,
) -> None:
    good = sbs.revocation(1)
    bad = {
        "other host": sbs.revocation(2, host_id=b"x" * 16),
        "replayed": sbs.revocation(1),
        "bit flipped": sbs.revocation(2)[:-1] + bytes([sbs.revocation(2)[-1] ^ 1]),
        "cut": sbs.revocation(2)[:-1],
        "endless frame": b"\xff\xff\xff\xff",
    }
    sbs.signing = Ed25519PrivateKey.generate()
    bad["forged"] = sbs.revocation(2)
    sbs.event_pieces = [[good, bad[case]]]
    with pytest.raises((errors.VerificationError, errors.ProtocolError)):
        reader.follow(session)
    assert [event.number for event in delivered] == [1]


def test_the_thread_reconnects_and_asks_from_where_it_was(
    sbs: FakeSbs,
    session: AttestedSession,
    reader: RevocationReader,
    delivered: list[Revocation],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(events, "FIRST_PAUSE_SECONDS", 0.01)
    sbs.event_pieces = [[sbs.revocation(1)], [sbs.revocation(1), sbs.revocation(2)], [sbs.revocation(2)]]
    sbs.refuse["events"] = [errors.TransportError("down")]
    reader.start()
    end = time.monotonic() + 5
    while len(delivered) < 2 and time.monotonic() < end:
        if not sbs.event_pieces:
            sbs.event_pieces = [[sbs.revocation(2)]]
        time.sleep(0.01)
    reader.stop()
    assert [event.number for event in delivered] == [1, 2]
    assert session.trusted.accepted


def test_a_new_signing_key_of_the_sbs_ends_in_a_new_session_not_in_silence(
    sbs: FakeSbs,
    session: AttestedSession,
    reader: RevocationReader,
    delivered: list[Revocation],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(events, "FIRST_PAUSE_SECONDS", 0.01)
    sbs.signing = Ed25519PrivateKey.generate()
    sbs.event_pieces = [[sbs.revocation(1)], [sbs.revocation(1)]]
    reader.start()
    end = time.monotonic() + 5
    while not delivered and time.monotonic() < end:
        time.sleep(0.01)
    reader.stop()
    assert [event.number for event in delivered] == [1]
    assert session.trusted.accepted


def test_a_stopped_reader_delivers_nothing(
    sbs: FakeSbs, session: AttestedSession, reader: RevocationReader, delivered: list[Revocation]
) -> None:
    sbs.event_pieces = [[sbs.revocation(1)]]
    reader.stop()
    reader.follow(session)
    assert delivered == []


def test_the_keeper_wakes_who_waits_for_a_session(keeper: SessionKeeper) -> None:
    assert keeper.wait(0.01) is None
    got: list[AttestedSession | None] = []
    waiter = threading.Thread(target=lambda: got.append(keeper.wait(5)))
    waiter.start()
    session = keeper.get()
    waiter.join(5)
    assert got == [session]
    keeper.reject(session)
    assert keeper.current() is None
