"""Who comes, leaves, is killed or stopped, and when: the whole churn from one seed, before anything is started.

Nothing that happens later changes the plan, so that a seed names one churn. Members come and go at random, drawn to
neither end: the more there are, the likelier it is that the next one goes.
"""

from dataclasses import dataclass
from enum import StrEnum
from math import ceil
from random import Random

VETERANS = ("veteran0", "veteran1", "veteran2")
"""Never harmed, so that one can see the whole time of one process."""
ASSEMBLY_SECONDS = 4.0
"""From one start to the next at first: a daemon takes some seconds of processor time to come up."""
FIRST_FRACTION = 0.75
"""Of all places, those taken before the churn begins."""
PAUSE_SECONDS = (5.0, 15.0)
FREEZE_SECONDS = (2.0, 40.0)
"""From a hiccup, which others wait out, to four times as long as they wait (`Timing.failure`)."""
FREEZE_NETWORK_CHANCE = 0.5
RESTART_CHANCE = 0.6
"""That who comes is one who was killed before, if there is any."""
UP_SECONDS = 30.0
"""Who is asked to leave has been up for this long: it can be asked."""
LEAVE_SECONDS = 20.0
"""Who has been asked to leave counts for this long."""


class Deed(StrEnum):
    JOIN = "join"
    """A fresh daemon, with an empty home."""
    RESTART = "restart"
    """One that was killed, on its old home."""
    LEAVE = "leave"
    KILL = "kill"
    """SIGKILL."""
    FREEZE = "freeze"
    """SIGSTOP."""
    THAW = "thaw"
    """SIGCONT."""


@dataclass(frozen=True, slots=True)
class Event:
    seconds: float
    """Since the beginning."""
    deed: Deed
    daemon: str
    with_network: bool = False
    """FREEZE and THAW: its p2pd too, as when a laptop sleeps."""


def plan_churn(random: Random, seconds: float, most: int) -> list[Event]:
    """In order of time; between half of `most` and `most` daemons run once all have come up, veterans included."""
    if most < 2 * len(VETERANS):
        raise ValueError(f"{most} daemons are too few: {len(VETERANS)} are never harmed, and are to be half at most")
    crew = _Crew(random, seconds, most)
    for number in range(_first(most)):
        name = VETERANS[number] if number < len(VETERANS) else crew.new_name()
        crew.arrive(number * ASSEMBLY_SECONDS, Deed.JOIN, name)
    now = assembly_seconds(most)
    while (now := now + random.uniform(*PAUSE_SECONDS)) < seconds:
        crew.go_on(now)
    return sorted(crew.events, key=lambda event: event.seconds)


def assembly_seconds(most: int) -> float:
    """When the churn begins."""
    return _first(most) * ASSEMBLY_SECONDS


def _first(most: int) -> int:
    return round(FIRST_FRACTION * most)


class _Crew:
    """Who is there, as far as it is planned."""

    def __init__(self, random: Random, seconds: float, most: int) -> None:
        self.events: list[Event] = []
        self._random, self._end, self._most, self._least = random, seconds, most, ceil(most / 2)
        self._since: dict[str, float] = {}
        """Who is up → since when."""
        self._frozen: dict[str, float] = {}
        """Who is stopped → until when."""
        self._leaving: dict[str, float] = {}
        self._killed: list[str] = []
        self._named = 0

    def new_name(self) -> str:
        self._named += 1
        return f"peer{self._named}"

    def arrive(self, now: float, deed: Deed, name: str) -> None:
        self._since[name] = now
        self._note(now, deed, name)

    def go_on(self, now: float) -> None:
        """One more event, if there is anything to do."""
        self._frozen = {name: until for name, until in self._frozen.items() if until > now}
        self._leaving = {name: until for name, until in self._leaving.items() if until > now}
        room = self._most - len(self._since) - len(self._leaving)
        fewest = len(self._since) <= self._least
        if room > 0 and (fewest or self._random.random() < room / (self._most - self._least)):
            self._admit(now)
        else:
            self._harm(now, may_go=not fewest)

    def _admit(self, now: float) -> None:
        if self._killed and self._random.random() < RESTART_CHANCE:
            name = self._killed.pop(self._random.randrange(len(self._killed)))
            self.arrive(now, Deed.RESTART, name)
        else:
            self.arrive(now, Deed.JOIN, self.new_name())

    def _harm(self, now: float, may_go: bool) -> None:
        """`may_go`: the victim need not stay alive."""
        victims = [name for name in self._since if name not in VETERANS and name not in self._frozen]
        if not victims:
            return
        name = self._random.choice(victims)
        deed = self._random.choice((Deed.LEAVE, Deed.KILL, Deed.FREEZE) if may_go else (Deed.FREEZE,))
        if deed is Deed.LEAVE and now - self._since[name] < UP_SECONDS:
            deed = Deed.KILL
        if deed is Deed.FREEZE:
            with_network = self._random.random() < FREEZE_NETWORK_CHANCE
            self._frozen[name] = until = min(self._end, now + self._random.uniform(*FREEZE_SECONDS))
            self._note(now, deed, name, with_network)
            self._note(until, Deed.THAW, name, with_network)
            return
        del self._since[name]
        self._note(now, deed, name)
        if deed is Deed.KILL:
            self._killed.append(name)
        else:
            self._leaving[name] = now + LEAVE_SECONDS

    def _note(self, seconds: float, deed: Deed, name: str, with_network: bool = False) -> None:
        self.events.append(Event(round(seconds, 1), deed, name, with_network))
