"""Builds projects once and starts them in an enclave, from their package files."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from enclave_caller import Caller
from enclave_door import Door

from cafe_lib.image.confidential import parse_confidential
from cafe_lib.image.manifest import verify_manifest
from cafe_lib.image.package import open_package, unwrap_confidential
from cafe_lib.toolchain.build import BuildResult, build_project
from cafe_lib.toolchain.keys import PublisherIdentity, create_publisher
from cafe_lib.toolchain.project import load_project
from hypervisor_agent.enclave.backend import BackendName, choose_backend
from hypervisor_agent.enclave.enclave import Enclave
from hypervisor_agent.enclave.process import SparePool
from hypervisor_agent.loader.load import ImageLoader


@pytest.fixture(scope="session")
def publisher(tmp_path_factory: pytest.TempPathFactory) -> PublisherIdentity:
    return create_publisher(tmp_path_factory.mktemp("publisher"))


@pytest.fixture(scope="session")
def build(
    publisher: PublisherIdentity, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[Path], BuildResult]:
    done: dict[Path, BuildResult] = {}

    def built(directory: Path) -> BuildResult:
        if directory not in done:
            output = tmp_path_factory.mktemp(directory.name)
            done[directory] = build_project(load_project(directory), publisher, lambda _: None, output)
        return done[directory]

    return built


def spares_of(name: BackendName) -> Iterator[SparePool]:
    if name == "kvm" and not os.access("/dev/kvm", os.R_OK | os.W_OK):
        pytest.skip("/dev/kvm is absent")
    spares = SparePool(choose_backend(name))
    yield spares
    spares.close()


@pytest.fixture(scope="session", params=["kvm", "emulator"])
def pool(request: pytest.FixtureRequest) -> Iterator[SparePool]:
    yield from spares_of(request.param)


@pytest.fixture(scope="session")
def kvm_pool() -> Iterator[SparePool]:
    """Give spares for what the emulator, with its one vCPU, has no say in."""
    yield from spares_of("kvm")


def launch(built: BuildResult, publisher: PublisherIdentity, pool: SparePool) -> Enclave:
    """Start an enclave from a package file, through every check that a release goes through."""
    package = open_package(built.package)
    verified = verify_manifest(package.cose, publisher.public_key)
    plain = unwrap_confidential(publisher.secret, package.cose, package.blob)
    loader = ImageLoader(verified.manifest, parse_confidential(plain))
    try:
        for index, chunk in enumerate(package.chunks()):
            loader.take_chunk(index, chunk)
        return Enclave.start(loader.finish(), pool)
    except BaseException:
        loader.discard()
        raise


@pytest.fixture
def launch_package(pool: SparePool, publisher: PublisherIdentity) -> Callable[[BuildResult], Enclave]:
    """Start an enclave, or raise what its package is refused with; the caller destroys it."""
    return lambda built: launch(built, publisher, pool)


@pytest.fixture
def start(pool: SparePool, publisher: PublisherIdentity) -> Iterator[Callable[[BuildResult], Caller]]:
    """Start an enclave and call its functions from here."""
    yield from callers(pool, publisher)


@pytest.fixture
def start_kvm(kvm_pool: SparePool, publisher: PublisherIdentity) -> Iterator[Callable[[BuildResult], Caller]]:
    """Start one whose vCPUs all run."""
    yield from callers(kvm_pool, publisher)


def callers(pool: SparePool, publisher: PublisherIdentity) -> Iterator[Callable[[BuildResult], Caller]]:
    started: list[Caller] = []

    def begin(built: BuildResult) -> Caller:
        started.append(Caller(built, launch(built, publisher, pool)))
        return started[-1]

    yield begin
    for caller in started:
        caller.close()


@pytest.fixture
def door(pool: SparePool, publisher: PublisherIdentity) -> Iterator[Callable[[BuildResult], Door]]:
    """Let real programs call into enclaves of a build."""
    doors: list[Door] = []
    with tempfile.TemporaryDirectory(prefix="cafe-") as directory:  # a path short enough for a socket

        def opened(built: BuildResult) -> Door:
            address = Path(directory) / str(len(doors))
            doors.append(Door(address, built, lambda: launch(built, publisher, pool)))
            return doors[-1]

        yield opened
        for one in doors:
            one.close()
