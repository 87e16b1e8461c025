import asyncio
import base64
import json
import socket
import stat

import aiohttp
import pytest
from safetensors.numpy import load

from peer.control import serve_control
from peer.demo import demo_manifest
from peer.errors import PeerError
from protocols.directives import Directive, DirectiveLog, Pause
from protocols.identity import Identity
from protocols.signed import Signer
from tests.peer.scripted_daemon import ScriptedDaemon, make_status

RUN = "demo-" + "a" * 26


@pytest.fixture
def daemon():
    return ScriptedDaemon(RUN)


@pytest.fixture
def socket_path(tmp_path):
    return tmp_path / "control.sock"


@pytest.fixture
async def api(daemon, socket_path, tmp_path):
    async with (
        serve_control(daemon, socket_path, scratch=tmp_path),
        aiohttp.ClientSession("http://daemon", connector=aiohttp.UnixConnector(str(socket_path))) as session,
    ):
        yield session


async def test_status_is_the_object_of_the_schema(api, daemon):
    async with api.get("/status") as response:
        answer = await response.json()
    assert response.content_type == "application/json"
    assert answer == json.loads(daemon.status().to_json())
    assert answer["schema"] == 1
    kinds = {"gossip", "pipeline", "stages"}  # of run
    assert set(answer) == {"schema", "run", "self", "peers", "last_round", "rejected", *kinds}


async def test_peers_are_the_other_members(api, daemon):
    async with api.get("/peers") as response:
        assert [member["name"] for member in await response.json()] == ["other"]


async def test_metrics_are_in_the_text_format_of_prometheus(api, daemon):
    async with api.get("/metrics") as response:
        assert await response.read() == daemon.metrics()
    assert response.headers["Content-Type"].startswith("text/plain; version=")


async def test_events_begin_with_the_status_and_bring_every_change(api, daemon):
    async with api.get("/events") as response:
        assert response.content_type == "application/x-ndjson"
        assert json.loads(await response.content.readline())["run"]["epoch"] == 3
        daemon.become(make_status(RUN, epoch=4))
        assert json.loads(await response.content.readline())["run"]["epoch"] == 4


async def test_events_come_four_times_a_second_at_most(api, daemon):
    loop = asyncio.get_running_loop()
    async with api.get("/events") as response:
        await response.content.readline()
        start = loop.time()
        daemon.become(make_status(RUN, epoch=4))
        await response.content.readline()
        daemon.become(make_status(RUN, epoch=5))
        daemon.become(make_status(RUN, epoch=6))
        assert json.loads(await response.content.readline())["run"]["epoch"] == 6
        assert loop.time() - start > 0.4


async def test_events_end_when_the_daemon_stops(daemon, socket_path, tmp_path):
    connector = aiohttp.UnixConnector(str(socket_path))
    async with aiohttp.ClientSession("http://daemon", connector=connector) as session:
        async with serve_control(daemon, socket_path, scratch=tmp_path):
            response = await session.get("/events")
            await response.content.readline()
        with pytest.raises(aiohttp.ClientPayloadError):
            await response.content.readline()


async def test_leave_is_accepted_and_asks_the_daemon(api, daemon):
    async with api.post("/leave") as response:
        assert response.status == 202
    assert daemon.left.is_set()


async def test_directives_are_shown_and_taken(api, daemon):
    organiser = Identity.from_seed(bytes(32))
    manifest = demo_manifest().model_copy(update={"organiser": organiser.peer_id})
    async with api.post("/directives", data=b"noise") as response:
        assert response.status == 409
        assert "no directive" in (await response.json())["error"]
    daemon.known = DirectiveLog(manifest)
    wire = Signer(organiser, manifest.run_id, 1).sign(Directive(number=1, order=Pause()), 7).wire
    async with api.post("/directives", data=wire) as response:
        assert response.status == 202
    async with api.get("/directives") as response:
        answer = await response.json()
    assert answer["schema"] == 1
    assert (answer["run"], answer["epoch"], answer["epochs_per_second"]) == (RUN, 3, 2.0)
    assert [(one["number"], one["action"], one["epoch"]) for one in answer["directives"]] == [(1, "pause", 7)]
    assert [base64.b64decode(text) for text in answer["statements"]] == [wire]
    async with api.post("/directives", data=bytes(100_000)) as response:
        assert response.status == 413


async def test_snapshot_is_the_model_and_leaves_nothing_behind(api, daemon, tmp_path):
    async with api.get("/snapshot") as response:
        tensors = load(await response.read())
    assert tensors["weight"].tolist() == daemon.model["weight"].tolist()
    assert not list(tmp_path.glob(".export-*"))


async def test_snapshot_before_there_is_a_model_says_so(api, daemon):
    daemon.model = None
    async with api.get("/snapshot") as response:
        assert response.status == 409
        assert "no model yet" in (await response.json())["error"]


@pytest.mark.parametrize(("method", "path", "code"), [("GET", "/nothing", 404), ("GET", "/leave", 405)])
async def test_wrong_requests_are_answered_in_json(api, daemon, method, path, code):
    async with api.request(method, path) as response:
        assert response.status == code
        assert path in (await response.json())["error"]
    assert not daemon.left.is_set()


async def test_socket_is_for_its_user_alone_and_goes_with_the_daemon(daemon, socket_path, tmp_path):
    async with serve_control(daemon, socket_path, scratch=tmp_path):
        assert stat.S_IMODE(socket_path.stat().st_mode) == 0o600
    assert not socket_path.exists()


async def test_socket_of_a_killed_daemon_is_replaced(daemon, socket_path, tmp_path):
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as killed:
        killed.bind(str(socket_path))
    async with serve_control(daemon, socket_path, scratch=tmp_path):
        assert socket_path.is_socket()


async def test_socket_of_a_living_daemon_is_not_taken(api, daemon, socket_path, tmp_path):
    with pytest.raises(PeerError, match="another daemon listens"):
        async with serve_control(daemon, socket_path, scratch=tmp_path):
            pass
    async with api.get("/status") as response:
        assert response.status == 200


async def test_socket_that_cannot_be_made_is_explained(daemon, tmp_path):
    with pytest.raises(PeerError, match=r"control socket .* cannot be opened"):
        async with serve_control(daemon, tmp_path / "no" / "such" / "control.sock", scratch=tmp_path):
            pass
