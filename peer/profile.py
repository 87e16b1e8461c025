"""How a member presents itself."""

from collections.abc import Callable
from dataclasses import dataclass

from protocols.roles import Role


@dataclass(frozen=True, slots=True)
class Profile:
    name: str
    role: Role = "trainer"
    client_mode: bool = False
    addresses: Callable[[], tuple[str, ...]] = tuple
    bandwidth: Callable[[], float] = float
    """Bytes per second that it can send; 0: not known."""
    token: bytes = b""
    """By which the run's organiser has admitted it."""
