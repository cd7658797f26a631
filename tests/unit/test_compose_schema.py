"""docker-compose.yml and Dockerfile: of the specified form, all images by version, nothing wide open.

No container engine takes part: this shows the form, not that the images run.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
SCHEMA = json.loads((ROOT / "tests" / "vectors" / "compose" / "schema.json").read_text())
TEXT = (ROOT / "docker-compose.yml").read_text()
COMPOSE = yaml.safe_load(TEXT)
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
OWN = [name for name, service in SERVICES.items() if "build" in service]
VERSIONED = re.compile(r"[a-z0-9./_-]+:v?[0-9]+\.[0-9]+[a-z0-9._-]*")
service = pytest.mark.parametrize("name", SERVICES)


def test_it_follows_the_schema() -> None:
    jsonschema.Draft7Validator.check_schema(SCHEMA)
    jsonschema.Draft7Validator(SCHEMA).validate(COMPOSE)


@pytest.mark.parametrize(
    "change",
    [
        {"services": {"x": {"image": "a:1", "imagee": "b"}}},
        {"services": {"x": {"command": ["a"]}}},
        {"services": {"x": {"image": "a:1", "depends_on": {"y": {}}}}},
        {"services": {"x": {"image": "a:1", "privileged": True}}},
        {"services": {"x y": {"image": "a:1"}}},
        {"services": [], "volumes": {}},
        {"volume": {}, "services": {}},
        {"services": {"x": {"image": "a:1", "healthcheck": {"test": "a", "interval": "soon"}}}},
    ],
    ids=["misspelt", "no-image", "no-condition", "privileged", "name", "list", "top-level", "duration"],
)
def test_the_schema_refuses(change: dict[str, Any]) -> None:
    assert not jsonschema.Draft7Validator(SCHEMA).is_valid(change)


@service
def test_images_have_a_version(name: str) -> None:
    assert VERSIONED.fullmatch(SERVICES[name]["image"]), SERVICES[name]["image"]


@service
def test_what_a_service_names_exists(name: str) -> None:
    used = SERVICES[name]
    assert set(used.get("depends_on", {})) <= set(SERVICES)
    assert {item["source"] for item in used.get("configs", [])} <= set(COMPOSE["configs"])
    sources = {mount.split(":")[0] for mount in used.get("volumes", [])}
    assert {source for source in sources if not source.startswith("/")} <= set(COMPOSE["volumes"])


@service
def test_ports_are_published_on_loopback_only(name: str) -> None:
    assert all(port.startswith("127.0.0.1:") for port in SERVICES[name].get("ports", []))


@pytest.mark.parametrize("name", OWN)
def test_our_own_services_run_with_little(name: str) -> None:
    used = SERVICES[name]
    assert used["read_only"]
    assert used["cap_drop"] == ["ALL"]
    assert set(used.get("cap_add", [])) <= {"DAC_OVERRIDE"}
    assert used["security_opt"] == ["no-new-privileges:true"]


def test_no_password_stands_in_the_file() -> None:
    for name, value in re.findall(r"(\w*(?:PASSWORD|SECRET)\w*): \"?([^\n\"]+)", TEXT):
        assert ":?" in value, name
    assert {"POSTGRES_PASSWORD", "S3_SECRET"} == set(re.findall(r"\$\{(\w+):\?", TEXT))


def test_the_agents_have_kvm_and_a_tpm() -> None:
    agents = {name: used for name, used in SERVICES.items() if "cafe-agent" in (used.get("command") or [])}
    assert len(agents) == 2
    for used in agents.values():
        assert any(device.startswith("/dev/kvm:") for device in used["devices"])
        assert any("tpmrm0" in device for device in used["devices"]) or "swtpm" in used["depends_on"]
        assert used["profiles"]


def test_the_dockerfile_takes_versions_and_fetches_nothing_itself() -> None:
    text = (ROOT / "Dockerfile").read_text()
    for image in re.findall(r"^FROM (\S+)", text, re.MULTILINE):
        assert VERSIONED.fullmatch(image), image
    assert not re.search(r"curl|wget|https?://|^ADD ", text, re.MULTILINE)
    assert "-c constraints.txt" in text
    assert re.search(r"^USER cafe$", text, re.MULTILINE)
