import json
import socket

from tests.swarm.processes import run_command


def test_doctor_examines_this_machine(home):
    told = run_command("doctor", "--listen", "/ip4/127.0.0.1/tcp/0")
    assert told.splitlines()[-1] == "this machine can take part"
    for check in ("versions", "home", "disk", "memory", "threads", "open files", "reachability", "bandwidth", "clock"):
        assert check in told
    assert home.identity().peer_id in told


def test_doctor_fails_with_what_to_do_about_it():
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        sentence = run_command("doctor", "--json", "--listen", f"/ip4/127.0.0.1/tcp/{port}", code=1)
    assert sentence == ""


def test_doctor_as_json_has_every_check_and_its_mend():
    report = json.loads(run_command("doctor", "--json", "--client-mode", "--threads", "1000"))
    assert (report["schema"], report["able"]) == (1, True)
    threads = next(finding for finding in report["findings"] if finding["check"] == "threads")
    assert threads["verdict"] == "warning"
    assert threads["mend"].startswith("join with --threads ")


def test_doctor_refuses_a_wrong_option_at_once(refuses):
    assert "must end in its PeerID" in refuses(2, "doctor", "--initial-peers", "/ip4/1.2.3.4/tcp/5")
