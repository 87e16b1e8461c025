"""The services of docker/compose.yaml as plain processes: their commands and environment, without the containers.

What a container has of its own is replaced: volumes and /tmp by directories, names and ports by loopback's.
"""

import json
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.docker.compose import Service, image_environment, load_project
from tests.swarm.processes import PEER, free_ports

START_SECONDS = 120.0


class Containers:
    """The processes of one project's services."""

    def __init__(self, volumes: Path, temporary: Path, port: int) -> None:
        self.project = load_project()
        self.volumes = volumes
        self._temporary = temporary
        self._port = port
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        for name in self.project.volumes:
            (volumes / name).mkdir(mode=0o700, parents=True)

    def start(self, name: str) -> None:
        service = self.project.services[name]
        with (self.volumes / f"{name}.log").open("ab") as log:
            self._processes[name] = subprocess.Popen(
                self._outside(service, service.entrypoint),
                env=self._environment(name),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def wait(self, name: str, seconds: float) -> int:
        """The exit code of the service."""
        return self._processes[name].wait(seconds)

    def execute(self, name: str, command: list[str]) -> subprocess.CompletedProcess[str]:
        """`docker compose exec`."""
        service = self.project.services[name]
        return subprocess.run(
            self._outside(service, command),
            env=self._environment(name),
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    def is_healthy(self, name: str) -> bool:
        check = self.project.services[name].healthcheck
        assert check is not None
        assert check.test[0] == "CMD"
        return self.execute(name, check.test[1:]).returncode == 0

    def group_size(self, name: str) -> int:
        """How many took part in the service's last round."""
        answer = self.execute(name, ["peer", "status", "--json"])
        last_round = json.loads(answer.stdout)["last_round"] if answer.returncode == 0 else None
        return int(last_round["group_size"]) if last_round else 0

    def stop(self, name: str) -> int:
        """As `docker stop`: SIGTERM, and so long to end. The exit code."""
        self._processes[name].send_signal(signal.SIGTERM)
        return self.wait(name, float(self.project.services[name].stop_grace_period.removesuffix("s")))

    def kill_all(self) -> None:
        for process in self._processes.values():
            process.kill()
            process.wait()

    def log(self, name: str) -> str:
        return (self.volumes / f"{name}.log").read_text()

    def _environment(self, name: str) -> dict[str, str]:
        service = self.project.services[name]
        own = self._temporary / name
        own.mkdir(mode=0o700, exist_ok=True)
        inside = image_environment() | service.environment
        return {
            "PATH": f"{Path(PEER).parent}:{os.environ['PATH']}",
            "TMPDIR": str(own),
            **{key: self._outside(service, [value])[0] for key, value in inside.items()},
        }

    def _outside(self, service: Service, words: list[str]) -> list[str]:
        """`words` with paths, host names and ports of the containers replaced by those here."""
        replaced = {target: str(self.volumes / volume) for target, volume in service.mounts().items()}
        replaced |= {"/dns4/bootstrap/": "/dns4/localhost/", "31337": str(self._port), "/0.0.0.0/": "/127.0.0.1/"}
        for inside, outside in replaced.items():
            words = [word.replace(inside, outside) for word in words]
        return words


@pytest.fixture
def containers(tmp_path: Path) -> Iterator[Containers]:
    temporary = Path(tempfile.mkdtemp(prefix="peer-test-"))  # short: it holds sockets
    with free_ports(1) as ports:
        containers = Containers(tmp_path / "volumes", temporary, ports[0])
    try:
        yield containers
    finally:
        containers.kill_all()
        shutil.rmtree(temporary, ignore_errors=True)


def test_the_services_train_together_and_stop_in_order(containers: Containers) -> None:
    containers.start("address")
    assert containers.wait("address", 60) == 0, containers.log("address")
    peer_id = containers.execute("bootstrap", ["peer", "id"]).stdout.strip()
    assert (containers.volumes / "address" / "bootstrap").read_text().strip().endswith(f"/p2p/{peer_id}")

    daemons = [name for name in containers.project.services if name != "address"]
    for name in daemons:
        containers.start(name)
    waiting = set(daemons)
    deadline = time.monotonic() + START_SECONDS
    while waiting and time.monotonic() < deadline:
        waiting -= {name for name in waiting if containers.group_size(name) == len(daemons)}
    assert not waiting, "\n".join(containers.log(name) for name in sorted(waiting))
    assert all(containers.is_healthy(name) for name in daemons)

    for name in daemons:
        assert containers.stop(name) == 0, containers.log(name)
    assert not containers.is_healthy("bootstrap")
