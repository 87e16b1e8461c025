"""Hosts with links of their own on one machine: network namespaces on a bridge, each link limited in both directions.

Needs root and iproute2. There is no latency but that of the queues.
"""

import os
import re
import subprocess
from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial
from typing import Any

SUBNET = "10.88.0"
BURST, QUEUE = "256k", "100ms"
_UNITS = {"kbit": 1e3, "mbit": 1e6, "gbit": 1e9}


def bytes_per_second(rate: str) -> float:
    """Of a rate as `tc` takes it: 100mbit."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([kmg]bit)", rate)
    if match is None:
        raise ValueError(f"{rate!r} is not a rate like 100mbit")
    return float(match[1]) * _UNITS[match[2]] / 8


class NetLab(AbstractContextManager):
    """`hosts` namespaces, numbered from 0; the switch between them is another one."""

    def __init__(self, hosts: int, rate: str) -> None:
        self._rate = rate
        self._switch = f"bench{os.getpid()}"
        self._hosts = [f"{self._switch}h{number}" for number in range(hosts)]
        self.addresses = [f"{SUBNET}.{number + 1}" for number in range(hosts)]

    def __enter__(self) -> "NetLab":
        try:
            _ip("netns", "add", self._switch)
            _ip("-n", self._switch, "link", "add", "switch", "type", "bridge")
            _ip("-n", self._switch, "link", "set", "switch", "up")
            for number, host in enumerate(self._hosts):
                self._plug_in(host, f"port{number}", self.addresses[number])
        except BaseException:
            self._remove()
            raise
        return self

    def __exit__(self, *exc: object) -> None:
        self._remove()

    def popen(self, number: int) -> Callable[..., subprocess.Popen]:
        """`subprocess.Popen` for processes of host `number`."""
        return partial(_popen_in, self._hosts[number])

    def _plug_in(self, host: str, port: str, address: str) -> None:
        switch = self._switch
        _ip("netns", "add", host)
        _ip("-n", switch, "link", "add", port, "type", "veth", "peer", "name", "eth0", "netns", host)
        _ip("-n", switch, "link", "set", port, "master", "switch", "up")
        _ip("-n", host, "address", "add", f"{address}/24", "dev", "eth0")
        for device in ("lo", "eth0"):
            _ip("-n", host, "link", "set", device, "up")
        for namespace, device in ((host, "eth0"), (switch, port)):
            limit = ["root", "tbf", "rate", self._rate, "burst", BURST, "latency", QUEUE]
            _run("tc", "-n", namespace, "qdisc", "add", "dev", device, *limit)

    def _remove(self) -> None:
        for namespace in (*self._hosts, self._switch):
            subprocess.run(["ip", "netns", "delete", namespace], check=False, capture_output=True)


def _popen_in(namespace: str, command: list[str], **options: Any) -> subprocess.Popen:
    return subprocess.Popen(["ip", "netns", "exec", namespace, *command], **options)


def _ip(*arguments: str) -> None:
    _run("ip", *arguments)


def _run(*command: str) -> None:
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}: {done.stderr.strip()}; a network lab needs root and iproute2")
