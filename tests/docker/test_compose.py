"""What docker/ promises, as far as it can be read from the files; tests/swarm/test_compose.py runs it."""

import re

import pytest

from tests.docker.compose import DOCKERFILE, ROOT, Service, image_environment, load_project

PROJECT = load_project()
SERVICES = sorted(PROJECT.services.items())
VOLUNTEERS = [service for name, service in SERVICES if name.startswith("volunteer")]


@pytest.mark.parametrize(("name", "service"), SERVICES)
def test_every_service_is_confined(name: str, service: Service):
    assert service.read_only
    assert service.cap_drop == ["ALL"]
    assert service.security_opt == ["no-new-privileges:true"]
    assert [entry.partition(":")[0] for entry in service.tmpfs] == ["/tmp"]


@pytest.mark.parametrize(("name", "service"), SERVICES)
def test_what_a_service_mounts_and_waits_for_exists(name: str, service: Service):
    assert set(service.mounts().values()) <= set(PROJECT.volumes)
    assert set(service.depends_on) <= set(PROJECT.services)


def test_there_are_a_bootstrap_peer_and_three_volunteers_with_homes_of_their_own():
    assert sorted(PROJECT.services) == ["address", "bootstrap", "volunteer-1", "volunteer-2", "volunteer-3"]
    home = image_environment()["PEER_HOME"]
    homes = [service.mounts()[home] for name, service in SERVICES if name != "address"]
    assert len(set(homes)) == 4


def test_volunteers_cannot_write_the_address_and_see_no_key_but_their_own():
    for service in VOLUNTEERS:
        assert "address:/address:ro" in service.volumes
        assert "bootstrap" not in service.mounts().values()


def test_one_variable_moves_all_to_another_run_and_publishes_the_bootstrap_peer():
    variables = {"PEER_RUN_ID": "mine", "PEER_PORT": "4001", "PEER_ANNOUNCE": "/ip4/203.0.113.7/tcp/4001"}
    project = load_project(variables)
    daemons = [service for name, service in project.services.items() if name != "address"]
    assert {service.environment["PEER_RUN_ID"] for service in daemons} == {"mine"}
    assert project.services["bootstrap"].ports == ["4001:31337"]
    assert project.services["bootstrap"].environment["PEER_ANNOUNCE"] == variables["PEER_ANNOUNCE"]


def test_the_image_runs_as_a_user_without_rights_and_keeps_its_state_in_a_volume():
    instructions = DOCKERFILE.read_text().splitlines()
    assert "USER peer" in instructions
    assert f"VOLUME {image_environment()['PEER_HOME']}" in instructions
    assert re.search(r'^HEALTHCHECK .*CMD \["peer", "status"\]$', DOCKERFILE.read_text(), re.MULTILINE)


def test_nothing_reaches_the_build_but_the_sources():
    ignore = (ROOT / ".dockerignore").read_text().splitlines()
    rules = [line for line in ignore if line and not line.startswith("#")]
    assert rules[0] == "*"
    allowed = {rule[1:] for rule in rules if rule.startswith("!")}
    assert allowed == {"pyproject.toml", "constraints.txt", "README.md", "protocols", "dht", "peer", "cli"}
