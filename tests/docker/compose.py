"""docker/compose.yaml as Docker reads it: checked by a schema, variables filled in.

The schema has those parts of the Compose specification that our file uses, and refuses every other key.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, StringConstraints

ROOT = Path(__file__).parents[2]
COMPOSE_FILE = ROOT / "docker" / "compose.yaml"
DOCKERFILE = ROOT / "docker" / "Dockerfile"

Duration = Annotated[str, StringConstraints(pattern=r"^\d+(ms|s|m|h)$")]
Size = Annotated[str, StringConstraints(pattern=r"^\d+[kmg]$")]
Volume = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9-]*:/[a-z/]+(:ro)?$")]
Port = Annotated[str, StringConstraints(pattern=r"^\d{1,5}:\d{1,5}$")]
Tmpfs = Annotated[str, StringConstraints(pattern=r"^/[a-z/]+(:\w+=\w+(,\w+=\w+)*)?$")]
Command = Annotated[list[str], Field(min_length=1)]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class Build(_Part):
    context: str
    dockerfile: str
    args: dict[str, str] = {}


class HealthCheck(_Part):
    test: Annotated[list[str], Field(min_length=2)]
    interval: Duration
    timeout: Duration
    start_period: Duration
    retries: int


class Dependency(_Part):
    condition: Literal["service_started", "service_healthy", "service_completed_successfully"]


class Service(_Part):
    image: str
    build: Build | None = None
    entrypoint: Command
    environment: dict[str, str] = {}
    volumes: list[Volume]
    ports: list[Port] = []
    network_mode: Literal["none"] | None = None
    depends_on: dict[str, Dependency] = {}
    healthcheck: HealthCheck | None = None
    init: bool = False
    restart: Literal["no", "always", "on-failure", "unless-stopped"] = "no"
    stop_grace_period: Duration = "10s"
    read_only: bool = False
    cap_drop: list[str] = []
    security_opt: list[str] = []
    tmpfs: list[Tmpfs] = []
    mem_limit: Size
    cpus: Annotated[float, Field(gt=0, strict=False)]
    pids_limit: Annotated[int, Field(gt=0)]

    def mounts(self) -> dict[str, str]:
        """Path in the container → name of the volume."""
        return {volume.split(":")[1]: volume.split(":")[0] for volume in self.volumes}


class Project(_Part):
    name: str
    services: dict[str, Service]
    volumes: dict[str, None]


def load_project(environment: Mapping[str, str] | None = None) -> Project:
    """Raises pydantic's ValidationError, naming the key that is wrong."""
    document = yaml.safe_load(COMPOSE_FILE.read_text())
    kept = {key: value for key, value in document.items() if not key.startswith("x-")}
    return Project.model_validate(_filled_in(kept, environment or {}))


def image_environment() -> dict[str, str]:
    """The `PEER_*` variables that the Dockerfile sets."""
    return dict(re.findall(r"\b(PEER_[A-Z_]+)=(\S+)", DOCKERFILE.read_text()))


def _filled_in(value: Any, environment: Mapping[str, str]) -> Any:
    """`value` with `${NAME:-default}` replaced in all its strings, and `$$` by `$`."""
    if isinstance(value, dict):
        return {key: _filled_in(inner, environment) for key, inner in value.items()}
    if isinstance(value, list):
        return [_filled_in(inner, environment) for inner in value]
    if not isinstance(value, str):
        return value

    def fill(match: re.Match[str]) -> str:
        return "$" if match[0] == "$$" else environment.get(match[1]) or match[2]

    return re.sub(r"\$\$|\$\{(\w+):-([^}]*)\}", fill, value)
