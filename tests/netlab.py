"""A network of hosts on one machine: Linux network namespaces on one switch, each behind a link with a rate limit.

Needs root, network namespaces and iproute2; `reason_why_not` says what is missing.

    with NetLab(hosts=4, rate="100mbit", delay_seconds=0.025) as lab:     # 10.78.0.1 … 10.78.0.4
        subprocess.Popen([*lab.inside(1), "peer", "join"])
        lab.unplug(1)
        lab.plug(1)
        lab.set_rate(2, "5mbit")
"""

import json
import os
import shutil
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Self

BURST = "256k"
LONG_CABLE = Path(__file__).with_name("long_cable.py")
QUEUE = "100ms"
"""How long a packet may wait before a link drops it."""


def reason_why_not() -> str | None:
    """None when networks can be made here."""
    if os.geteuid() != 0:
        return "network namespaces need root"
    if missing := [tool for tool in ("ip", "tc") if shutil.which(tool) is None]:
        return f"{' and '.join(missing)} of iproute2 not installed"
    try:
        with NetLab(1):
            return None
    except subprocess.CalledProcessError as error:
        return f"no network namespaces here: {(error.stderr or '').strip()}"


class NetLab:
    """`hosts` namespaces, numbered from 1, and one more that is the switch; gone when the context ends."""

    def __init__(self, hosts: int, rate: str = "100mbit", delay_seconds: float = 0.0) -> None:
        """`delay_seconds`: from a host to the switch, and from there to a host; four times that there and back."""
        self.hosts = range(1, hosts + 1)
        self._rate, self._delay = rate, delay_seconds
        self._switch = f"lab{os.getpid()}"
        self._resources = ExitStack()

    def __enter__(self) -> Self:
        with ExitStack() as resources:
            self._add(self._switch, resources)
            self._ip(self._switch, "link", "add", "name", "switch", "type", "bridge")
            self._ip(self._switch, "link", "set", "switch", "up")
            for host in self.hosts:
                self._connect(host, resources)
            self._resources = resources.pop_all()
        return self

    def __exit__(self, *_error: object) -> None:
        self._resources.close()

    def address(self, host: int) -> str:
        return f"10.78.0.{host}"

    def inside(self, host: int) -> list[str]:
        """What to put before a command to run it on that host."""
        return ["ip", "netns", "exec", self._name(host)]

    def set_rate(self, host: int, rate: str) -> None:
        """Of its link, in both directions."""
        for namespace, device in ((self._name(host), "eth0"), (self._switch, f"port{host}")):
            limit = ("tbf", "rate", rate, "burst", BURST, "latency", QUEUE)
            _run("ip", "netns", "exec", namespace, "tc", "qdisc", "replace", "dev", device, "root", *limit)

    def sent_bytes(self, host: int) -> int:
        """What has left that host by its link, headers included."""
        shown = _run("ip", "-n", self._name(host), "-s", "-j", "link", "show", "eth0")
        return int(json.loads(shown)[0]["stats64"]["tx"]["bytes"])

    def move(self, host: int, address: str) -> None:
        """Gives the host another address, as a router may; connections from the old one are dead."""
        self._ip(self._name(host), "address", "delete", f"{self.address(host)}/16", "dev", "eth0")
        self._ip(self._name(host), "address", "add", f"{address}/16", "dev", "eth0")

    def unplug(self, *hosts: int) -> None:
        """Pulls the cables of these hosts."""
        for host in hosts:
            self._ip(self._switch, "link", "set", f"port{host}", "down")

    def plug(self, *hosts: int) -> None:
        for host in hosts:
            self._ip(self._switch, "link", "set", f"port{host}", "up")

    def part(self, *hosts: int) -> None:
        """These hosts reach each other, and the others each other, but nobody from there to here."""
        for host in hosts:
            self._bridge_port(host, master="island")

    def unite(self, *hosts: int) -> None:
        for host in hosts:
            self._bridge_port(host, master="switch")

    def _connect(self, host: int, resources: ExitStack) -> None:
        name, port = self._name(host), f"port{host}"
        self._add(name, resources)
        if self._delay:
            self._lay_long_cable(name, port, resources)
        else:
            pair = ("type", "veth", "peer", "name", port, "netns", self._switch)
            self._ip(name, "link", "add", "name", "eth0", *pair)
        self._ip(name, "address", "add", f"{self.address(host)}/16", "dev", "eth0")
        self._ip(name, "link", "set", "eth0", "up")
        self._ip(name, "link", "set", "lo", "up")
        self._bridge_port(host, master="switch")
        self._ip(self._switch, "link", "set", port, "up")
        self.set_rate(host, self._rate)

    def _lay_long_cable(self, name: str, port: str, resources: ExitStack) -> None:
        command = ["ip", "netns", "exec", self._switch, sys.executable, str(LONG_CABLE), port, "far", str(self._delay)]
        cable = resources.enter_context(subprocess.Popen(command, stdout=subprocess.PIPE, text=True))
        resources.callback(cable.terminate)
        assert cable.stdout is not None
        if not cable.stdout.readline():
            raise RuntimeError(f"{name} has no cable: {LONG_CABLE} has ended")
        self._ip(self._switch, "link", "set", "far", "netns", name, "name", "eth0")

    def _bridge_port(self, host: int, master: str) -> None:
        if master == "island":  # a second switch, made when it is needed first
            subprocess.run(
                ["ip", "-n", self._switch, "link", "add", "name", master, "type", "bridge"],
                check=False,
                capture_output=True,
            )
            self._ip(self._switch, "link", "set", master, "up")
        self._ip(self._switch, "link", "set", f"port{host}", "master", master)

    def _add(self, namespace: str, resources: ExitStack) -> None:
        _run("ip", "netns", "add", namespace)
        resources.callback(_run, "ip", "netns", "delete", namespace)

    def _name(self, host: int) -> str:
        return f"{self._switch}h{host}"

    def _ip(self, namespace: str, *command: str) -> None:
        _run("ip", "-n", namespace, *command)


def _run(*command: str) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout
