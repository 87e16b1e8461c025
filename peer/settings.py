"""What the user may set: flag, then `PEER_<NAME>` in the environment, then `config.toml` in the home, then default."""

import base64
import os
import re
import socket
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self, TypeVar

from pydantic import AfterValidator, BeforeValidator, Field, StringConstraints, ValidationError, model_validator
from pydantic_settings import (
    BaseSettings,
    InitSettingsSource,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

from peer.errors import UsageError
from peer.multiaddrs import check_address, check_listen_address, check_peer_address
from peer.setting_sources import VARIABLE_PREFIX, explain, flag, read_config
from peer.user_paths import user_path
from protocols.roles import Role

T = TypeVar("T")


def default_home() -> Path:
    """`$XDG_DATA_HOME/peer`, or `~/.local/share/peer`. Raises UsageError where this user has no home directory."""
    base = os.environ.get("XDG_DATA_HOME", "")
    try:
        return (Path(base) if os.path.isabs(base) else Path.home() / ".local" / "share") / "peer"
    except RuntimeError as error:
        raise UsageError("--home is missing, and this user has no home directory; give it, or set HOME") from error


def default_name() -> str:
    """This machine's name, as far as it is made of characters that a name may have."""
    return re.sub(r"[^\w.+@-]+", "-", socket.gethostname().partition(".")[0])[:64] or "peer"


def default_threads() -> int:
    """Half of the cores that this process may use, at least one: the volunteer keeps the other half."""
    return max(1, len(os.sched_getaffinity(0)) // 2)


def _split(value: Any) -> Any:
    """Several values in one environment variable stand between commas."""
    return [part.strip() for part in value.split(",") if part.strip()] if isinstance(value, str) else value


def _absolute(path: Path) -> Path:
    return Path(os.path.abspath(user_path(str(path))))


def _token(text: Any) -> Any:
    """What `peer run admit` has printed."""
    if not isinstance(text, str):
        return text
    try:
        return base64.b64decode(text.encode(), altchars=b"-_", validate=True)
    except (ValueError, UnicodeEncodeError) as error:
        raise ValueError("is no token; give what `peer run admit` has printed, whole") from error


def _misbehaviour(name: str) -> str:
    from peer.misbehaviour import MISBEHAVIOURS  # noqa: PLC0415  (it loads torch)

    if name not in MISBEHAVIOURS:
        raise ValueError(f"there is no misbehaviour {name!r}; choose one of {', '.join(MISBEHAVIOURS)}")
    return name


Several = Annotated[tuple[T, ...], NoDecode, BeforeValidator(_split)]
Address = Annotated[str, AfterValidator(check_address)]
ListenAddress = Annotated[str, AfterValidator(check_listen_address)]
PeerAddress = Annotated[str, AfterValidator(check_peer_address)]
UserPath = Annotated[Path, AfterValidator(_absolute)]
MemberName = Annotated[str, StringConstraints(pattern=r"^[\w.+@-]([\w.+@ -]{0,62}[\w.+@-])?$")]


class Settings(BaseSettings):
    """What every command knows: the home. Constructing one reads all sources; `load` is for the command line."""

    model_config = SettingsConfigDict(
        env_prefix=VARIABLE_PREFIX,
        env_ignore_empty=True,
        extra="forbid",
        frozen=True,
        populate_by_name=True,
        defer_build=True,
    )
    user_names: ClassVar[dict[str, str]] = {}
    """Where a setting's name for the user differs from its name here."""

    home: UserPath = Field(default_factory=default_home)

    @classmethod
    def load(cls, **flags: Any) -> Self:
        """The settings, where `flags` holds those given on the command line (None, or no value of several: not given).

        An empty value is refused: it comes from a variable of the shell that is not set, and `--home "$UNSET"` must not
        mean the home of somebody's own. Raises UsageError, which names the flag, the variable or the file's key that
        holds the wrong value.
        """
        given = {name: value for name, value in flags.items() if value is not None and value not in ([], ())}
        flags_given = {cls.user_names.get(name, name) for name in given}
        for name, value in given.items():
            if value == "" or (isinstance(value, list | tuple) and "" in value):
                raise UsageError(f"{flag(cls.user_names.get(name, name))}: is empty; give a value, or leave it out")
        try:
            return cls(**given)
        except ValidationError as error:
            raise UsageError(explain(error, flags_given, _config_path(given), cls.user_names)) from error

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        config = read_config(_config_path(init_settings()), _configurable_names())
        mine = {name: config[key] for name in cls.model_fields if (key := cls.user_names.get(name, name)) in config}
        return init_settings, env_settings, InitSettingsSource(settings_cls, init_kwargs=mine)


class JoinSettings(Settings):
    """`peer join`."""

    run_id: str
    initial_peers: Several[PeerAddress] = ()
    listen: Several[ListenAddress] = ()
    """Where to listen; empty: every interface, a free port."""
    announce: Several[Address] = ()
    """What to tell others instead of the addresses found."""
    name: MemberName = Field(default_factory=default_name)
    role: Role | None = None
    """None: all that a peer of such a run can do."""
    stage: Annotated[int, Field(ge=0, lt=64)] | None = None
    """Of a pipeline: serve this one, and no other."""
    emulate: Annotated[float, Field(gt=0, le=3600)] | None = None
    """Seconds: wait for so long instead of computing a microbatch; only a run made for tests lets us."""
    activations: Annotated[float, Field(ge=0, le=1e6)] | None = None
    """Megabytes: of a pipeline, keep so much of forward passes for their backward passes, at most. None: a share of
    the memory that is free (`peer.swarm.kept_passes`)."""
    client_mode: bool = False
    """Accept no inbound connections."""
    relay: Several[PeerAddress] = ()
    """Who passes connections on to us."""
    serve_relay: bool = False
    """Pass connections on to others."""
    no_local_discovery: bool = False
    max_epochs: Annotated[int, Field(ge=1)] | None = None
    """Leave after this many epochs here."""
    until_done: bool = False
    """Stop when the run's last epoch is reached; else the daemon stays and serves."""
    bandwidth: Annotated[float, Field(ge=0.1, le=1e6)] | None = None
    """Mbit/s: send no more than this."""
    log_format: Literal["text", "json"] = "text"
    detach: bool = False
    """Go into the background when it has come up."""
    threads: Annotated[int, Field(ge=1, le=1024)] = Field(default_factory=default_threads)
    data: Several[UserPath] = ()
    """Files and directories where the shards of the run's data are looked for."""
    token: Annotated[bytes, BeforeValidator(_token)] = b""
    """By which the run's organiser has admitted this peer."""
    misbehave: Annotated[str, AfterValidator(_misbehaviour)] | None = None
    """How to attack the run on purpose; only a run made for tests lets us."""
    data_quota: Annotated[float, Field(gt=0)] = 20.0
    """Gigabytes of data that are fetched from other members and kept in the home, at most."""

    @model_validator(mode="after")
    def _fit_together(self) -> Self:
        if self.role == "monitor" and self.max_epochs is not None:
            raise ValueError(
                "--max-epochs: a monitor plays no epochs; leave it out, or stop at the end by --until-done"
            )
        if self.stage is not None and self.role not in (None, "stage", "both"):
            raise ValueError(f"--stage: a {self.role} serves no stage; leave out --stage or --role")
        if self.client_mode and self.listen:
            raise ValueError(
                "--listen: nobody can connect to a peer in client mode; leave out --listen or --client-mode"
            )
        return self

    @property
    def local_discovery(self) -> bool:
        """Whether to look for other daemons of the run on this machine and its local network."""
        return not self.no_local_discovery


class ReportSettings(Settings):
    """What every command knows that answers a person or a program."""

    user_names = {"PEER_JSON": "json", "json_output": "json"}

    json_output: bool = Field(False, validation_alias="PEER_JSON")


class ObserveSettings(ReportSettings):
    """`peer status`, `peers`, `watch` and `leave`."""

    run_id: str | None = None
    initial_peers: Several[PeerAddress] = ()
    """Through whom a run is seen from outside; only the flag asks for that."""


class DoctorSettings(ReportSettings):
    """`peer doctor`: what `peer join` would be given."""

    initial_peers: Several[PeerAddress] = ()
    listen: Several[ListenAddress] = ()
    announce: Several[Address] = ()
    client_mode: bool = False
    relay: Several[PeerAddress] = ()
    serve_relay: bool = False
    threads: Annotated[int, Field(ge=1, le=1024)] = Field(default_factory=default_threads)


class LogsSettings(Settings):
    """`peer logs`."""

    run_id: str | None = None
    follow: bool = False
    lines: Annotated[int, Field(ge=0)] | None = None


class ExportSettings(Settings):
    """`peer export`."""

    run_id: str | None = None
    initial_peers: Several[PeerAddress] = ()
    """As in `ObserveSettings`."""
    output: UserPath
    force: bool = False


def _configurable_names() -> set[str]:
    classes: tuple[type[Settings], ...] = (JoinSettings, ObserveSettings, LogsSettings, ExportSettings)
    names = {kind.user_names.get(name, name) for kind in classes for name in kind.model_fields}
    return names - {"home"}  # it says where the file is


def _config_path(given: dict[str, Any]) -> Path:
    home = given.get("home") or os.environ.get(f"{VARIABLE_PREFIX}HOME") or default_home()
    return Path(os.path.abspath(os.path.expanduser(home))) / "config.toml"
