import json
import os
import socket
from collections import namedtuple
from contextlib import asynccontextmanager

import pytest

from dht.dial_back import DialledBack, serve_dial_back
from dht.sink import serve_sink
from peer import resources
from peer.doctor import machine, reachability
from peer.doctor.findings import failed, ok, report, warning
from peer.doctor.network import check_network
from peer.ephemeral import ephemeral_node
from peer.home import Home
from peer.settings import DoctorSettings

LOOPBACK = "/ip4/127.0.0.1/tcp/0"
NOBODY = "12D3KooWQmwSiQhS7pKGX7bPbMLTQpLSHDTMUH8vTXXKcx1AmtL2"


@pytest.fixture
def home(tmp_path, runtime_directory):
    return Home(tmp_path / "home")


@pytest.fixture
def busy_port():
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


def test_only_a_failure_stops_a_machine():
    assert report([ok("a", "well"), warning("b", "so-so", "mend it")]).able
    stopped = report([ok("a", "well"), failed("b", "two\n  lines", "mend it")])
    assert not stopped.able
    shown = json.loads(stopped.to_json())
    assert shown["schema"] == 1
    assert shown["findings"][1] == {"check": "b", "verdict": "failed", "detail": "two lines", "mend": "mend it"}


def test_this_installation_has_what_it_needs():
    finding = machine.check_versions()
    assert finding.verdict == "ok", finding
    assert "torch 2." in finding.detail


@pytest.mark.parametrize(
    ("required", "detail"),
    [("numpy<1", "is not <1"), ("no-such-package>=1", "no-such-package is not installed")],
)
def test_a_package_that_does_not_fit_is_named(monkeypatch, required, detail):
    monkeypatch.setattr(machine, "requires", lambda _name: ["aiohttp", required, "pytest>=99; extra == 'dev'"])
    finding = machine.check_versions()
    assert finding.verdict == "failed"
    assert detail in finding.detail
    assert finding.mend == f"install it: pip install '{required}'"


def test_a_home_that_works_is_well_and_one_that_others_can_read_is_not(home):
    assert machine.check_home(home).verdict == "ok"
    home.identity_path.chmod(0o644)
    finding = machine.check_home(home)
    assert finding.verdict == "failed"
    assert "can be read by others" in finding.detail
    assert finding.mend == f"run: chmod 600 {home.identity_path}"


def test_a_home_that_is_a_file_is_told(tmp_path, home):
    (tmp_path / "home").write_text("")
    assert machine.check_home(home).verdict == "failed"


@pytest.mark.parametrize(("free", "verdict"), [(1e8, "failed"), (1e9, "warning"), (1e12, "ok")])
def test_free_disk(home, monkeypatch, free, verdict):
    usage = namedtuple("usage", "free")
    monkeypatch.setattr(machine.shutil, "disk_usage", lambda _path: usage(free))
    assert machine.check_disk(home).verdict == verdict


@pytest.fixture
def control_group(tmp_path, monkeypatch):
    monkeypatch.setattr(resources, "_CGROUP", tmp_path)
    return tmp_path


def test_a_container_has_the_memory_of_its_control_group(control_group):
    everything = resources.available_memory_bytes()
    (control_group / "memory.current").write_text("300000000\n")
    (control_group / "memory.max").write_text("max\n")
    assert resources.available_memory_bytes() > everything / 2
    (control_group / "memory.max").write_text("800000000\n")
    assert resources.available_memory_bytes() == 500e6
    finding = machine.check_memory()
    assert (finding.verdict, finding.detail) == ("failed", "0.5 GB available; the smallest run needs 0.7 GB")


def test_a_container_has_the_cores_of_its_control_group(control_group):
    everything = len(os.sched_getaffinity(0))
    assert resources.usable_cores() == everything
    (control_group / "cpu.max").write_text("50000 100000\n")
    assert resources.usable_cores() == 0.5
    finding = machine.check_threads(4)
    assert finding.verdict == "warning"
    assert finding.mend == "join with --threads 1"


@pytest.mark.parametrize(("limit", "verdict"), [(64, "failed"), (512, "warning"), (4096, "ok"), (-1, "ok")])
def test_open_files(monkeypatch, limit, verdict):
    monkeypatch.setattr(machine.resource, "getrlimit", lambda _what: (limit, limit))
    assert machine.check_open_files().verdict == verdict


async def examined(**settings):
    """Check → finding."""
    findings = await check_network(DoctorSettings(**settings))
    return {finding.check: finding for finding in findings}


@asynccontextmanager
async def member():
    """What every daemon serves, at its address."""
    async with ephemeral_node(listen=[LOOPBACK]) as (node, _):
        await serve_dial_back(node)
        await serve_sink(node.transport)
        yield node


async def test_a_machine_with_a_network_is_well():
    async with member() as node:
        found = await examined(listen=[LOOPBACK], initial_peers=node.addresses())
    assert {check: finding.verdict for check, finding in found.items()} == {
        "network process": "ok",
        "bandwidth": found["bandwidth"].verdict,
        "reachability": "warning",
        "upload": "ok",
        "initial peers": "ok",
        "clock": "ok",
    }
    assert found["bandwidth"].verdict != "failed"
    assert "a member dialled back at /ip4/127.0.0.1/tcp/" in found["reachability"].detail
    assert "nobody on the internet has tried" in found["reachability"].detail
    assert f"Mbit/s to {node.peer_id}" in found["upload"].detail
    assert "1 of 1 answer" in found["initial peers"].detail
    assert found["clock"].detail.startswith("0.0 s")


async def test_a_machine_that_reaches_itself_but_that_others_cannot_is_told():
    """It listens at another address than that from which its connections come, as behind a firewall."""
    async with member() as node:
        found = await examined(listen=["/ip4/127.0.0.2/tcp/0"], initial_peers=node.addresses())
    assert found["reachability"].verdict == "warning"
    assert "a member could not connect to /ip4/127.0.0.1/tcp/" in found["reachability"].detail
    assert "firewall" in found["reachability"].mend


async def test_without_anybody_outside_nothing_is_said_of_what_others_can_reach():
    found = await examined(listen=[LOOPBACK])
    assert found["reachability"].verdict == "warning"
    assert "nobody outside has tried" in found["reachability"].detail


async def test_a_member_that_does_not_dial_back_leaves_it_open():
    async with ephemeral_node(listen=[LOOPBACK]) as (node, _):
        found = await examined(listen=[LOOPBACK], initial_peers=node.addresses())
    assert "nobody outside has tried (" in found["reachability"].detail
    assert found["upload"].verdict == "warning"
    assert found["upload"].detail.startswith("not measured")


PUBLIC = "/ip4/1.1.1.1/tcp/4001"


@pytest.mark.parametrize(
    ("host", "announced", "verdict", "words"),
    [
        ("1.1.1.1", [PUBLIC], "ok", f"a member dialled back at {PUBLIC}"),
        ("1.1.1.1", ["/dns4/home.example/tcp/4001"], "ok", "a member dialled back"),
        ("1.1.1.1", ["/ip4/192.168.1.2/tcp/4001"], "warning", f"join with --announce {PUBLIC}"),
        ("1.1.1.1", ["/ip4/1.1.1.1/tcp/40010"], "warning", f"join with --announce {PUBLIC}"),
        ("192.168.1.2", ["/ip4/192.168.1.2/tcp/4001"], "warning", "nobody on the internet has tried"),
    ],
)
def test_what_a_member_that_dialled_back_tells(host, announced, verdict, words):
    addresses = [f"{address}/p2p/{NOBODY}" for address in announced]
    finding = reachability.judge_dialled_back(DialledBack(host, (4001,)), addresses)
    assert finding.verdict == verdict
    assert words in f"{finding.detail} {finding.mend}"


def test_a_public_address_that_nobody_outside_has_tried_is_not_called_well():
    finding = reachability.judge_from_here([PUBLIC], [], "nobody outside has tried", announced=False)
    assert finding.verdict == "warning"
    assert "but nobody outside has tried" in finding.detail


async def test_a_relay_that_passes_connections_on_is_well():
    async with ephemeral_node(listen=[LOOPBACK], serve_relay=True) as (relay, _):
        found = await examined(client_mode=True, relay=relay.addresses())
    assert (found["reachability"].verdict, found["relay"].verdict) == ("ok", "ok")


async def test_a_relay_that_is_gone_is_told(monkeypatch):
    monkeypatch.setattr(reachability, "RELAY_SECONDS", 2.0)
    found = await examined(client_mode=True, relay=[f"/ip4/127.0.0.1/tcp/1/p2p/{NOBODY}"])
    assert found["relay"].verdict == "failed"
    assert "--serve-relay" in found["relay"].mend


async def test_a_machine_that_is_to_relay_tries_it():
    found = await examined(listen=[LOOPBACK], serve_relay=True)
    assert found["relay"].verdict == "ok"


async def test_a_port_that_is_taken_and_an_initial_peer_that_is_another_are_told(busy_port):
    address = f"/ip4/127.0.0.1/tcp/{busy_port}"
    async with ephemeral_node(listen=[LOOPBACK]) as (member, _):
        elsewhere = member.addresses()[0].replace(member.peer_id, NOBODY)
        found = await examined(listen=[address], initial_peers=[elsewhere])
    assert found["reachability"].verdict == "failed"
    assert "address already in use" in found["reachability"].detail
    assert found["initial peers"].verdict == "failed"
    assert "compare its PeerID" in found["initial peers"].mend


async def test_in_client_mode_nobody_need_reach_us():
    found = await examined(client_mode=True)
    assert found["reachability"].verdict == "ok"
    assert "compared with nobody" in found["clock"].detail
