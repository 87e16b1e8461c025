"""A network of hosts on one machine: Linux network namespaces on one switch, each behind a link with a rate limit.

Needs root, network namespaces and iproute2; `reason_why_not` says what is missing.

    with NetLab(hosts=4, rate="100mbit", delay_seconds=0.025) as lab:     # 10.78.0.1 … 10.78.0.4
        subprocess.Popen([*lab.inside(1), "peer", "join"])
        lab.unplug(1)
        lab.plug(1)
        lab.set_rate(2, "5mbit")

    with NetLab(hosts=3, routed=[3], network="45.78") as lab:             # 192.168.3.2 behind 45.78.0.3
"""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Collection
from contextlib import ExitStack
from pathlib import Path
from typing import Self

BURST = "256k"
LONG_CABLE = Path(__file__).with_name("long_cable.py")
QUEUE = "100ms"
"""How long a packet may wait before a link drops it."""
CONGESTION_CONTROL = "cubic"
"""Of TCP, as most hosts on the internet have it, whatever this machine has."""
ROUTER = """
table ip lab {
    chain translate {
        type nat hook postrouting priority srcnat;
        oifname eth0 masquerade
    }
    chain guard_itself {
        type filter hook input priority filter;
        iifname eth0 ct state new,invalid drop
    }
    chain guard_inside {
        type filter hook forward priority filter;
        iifname eth0 ct state new,invalid drop
    }
}
"""
"""As at home: who is inside has its address outside, and nobody comes in who was not called."""


def reason_why_not(*, routers: bool = False) -> str | None:
    """None when networks can be made here; `routers`: those with routers, too."""
    if os.geteuid() != 0:
        return "network namespaces need root"
    if missing := [tool for tool in ("ip", "tc") if shutil.which(tool) is None]:
        return f"{' and '.join(missing)} of iproute2 not installed"
    if routers and shutil.which("nft") is None:
        return "nftables not installed"
    try:
        with NetLab(1, routed=[1] if routers else ()):
            return None
    except subprocess.CalledProcessError as error:
        return f"no network namespaces here: {(error.stderr or '').strip()}"


class NetLab:
    """`hosts` namespaces, numbered from 1, and one more that is the switch; gone when the context ends."""

    def __init__(
        self,
        hosts: int,
        rate: str = "100mbit",
        delay_seconds: float = 0.0,
        *,
        routed: Collection[int] = (),
        network: str = "10.78",
    ) -> None:
        """`delay_seconds`: from a host to the switch, and from there to a host; four times that there and back.

        `routed`: hosts that are behind a router each, which has their address; needs nftables. `network`: of all
        addresses, for those who care whether they are public.
        """
        self.hosts = range(1, hosts + 1)
        self._routed, self._network = frozenset(routed), network
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
        """By which the others know it."""
        return f"{self._network}.0.{host}"

    def own_address(self, host: int) -> str:
        """By which it knows itself."""
        return f"192.168.{host}.2" if host in self._routed else self.address(host)

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
        if host in self._routed:
            name = self._set_up_router(host, resources)
        if self._delay:
            self._lay_long_cable(name, port, resources)
        else:
            pair = ("type", "veth", "peer", "name", port, "netns", self._switch)
            self._ip(name, "link", "add", "name", "eth0", *pair)
        self._ip(name, "address", "add", f"{self.address(host)}/16", "dev", "eth0")
        self._ip(name, "link", "set", "eth0", "up")
        self._ip(name, "link", "set", "lo", "up")
        network = (f"{self._network}.0.0/16", "dev", "eth0", "src", self.address(host))
        self._ip(name, "route", "change", *network, "congctl", CONGESTION_CONTROL)
        self._bridge_port(host, master="switch")
        self._ip(self._switch, "link", "set", port, "up")
        self.set_rate(host, self._rate)

    def _set_up_router(self, host: int, resources: ExitStack) -> str:
        """Between the host and the switch."""
        name, router = self._name(host), f"{self._name(host)}r"
        self._add(router, resources)
        self._ip(name, "link", "add", "name", "eth0", "type", "veth", "peer", "name", "inside", "netns", router)
        for namespace, device, address in (
            (name, "eth0", self.own_address(host)),
            (router, "inside", f"192.168.{host}.1"),
        ):
            self._ip(namespace, "address", "add", f"{address}/24", "dev", device)
            self._ip(namespace, "link", "set", device, "up")
        self._ip(name, "link", "set", "lo", "up")
        self._ip(name, "route", "add", "default", "via", f"192.168.{host}.1")
        within = ("ip", "netns", "exec", router)
        _run(*within, "sysctl", "-qw", "net.ipv4.ip_forward=1")
        subprocess.run([*within, "nft", "-f", "-"], input=ROUTER, check=True, capture_output=True, text=True)
        return router

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
