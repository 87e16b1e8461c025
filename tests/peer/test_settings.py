import os

import pytest

from peer.errors import UsageError
from peer.multiaddrs import check_address, check_peer_address
from peer.settings import ExportSettings, JoinSettings, ObserveSettings, Settings, default_home

PEER = "/ip4/203.0.113.7/tcp/31337/p2p/12D3KooWQmwSiQhS7pKGX7bPbMLTQpLSHDTMUH8vTXXKcx1AmtL2"


@pytest.fixture(autouse=True)
def environment(monkeypatch, tmp_path):
    """No variable of ours but the home."""
    for name in os.environ:
        if name.startswith("PEER_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("PEER_HOME", str(tmp_path))


def write_config(tmp_path, text):
    (tmp_path / "config.toml").write_text(text)


def test_a_flag_wins_over_the_variable_over_the_file_over_the_default(monkeypatch, tmp_path):
    assert JoinSettings.load(run_id="demo").role is None
    write_config(tmp_path, 'role = "monitor"\nthreads = 3\nname = "from file"')
    monkeypatch.setenv("PEER_ROLE", "aggregator")
    monkeypatch.setenv("PEER_THREADS", "2")
    settings = JoinSettings.load(run_id="demo", threads="1")
    assert (settings.name, settings.role, settings.threads) == ("from file", "aggregator", 1)


def test_several_values_in_a_variable_stand_between_commas(monkeypatch):
    monkeypatch.setenv("PEER_INITIAL_PEERS", f"{PEER}, {PEER.replace('31337', '31338')},")
    monkeypatch.setenv("PEER_LISTEN", "/ip4/0.0.0.0/tcp/0")
    settings = JoinSettings.load(run_id="demo")
    assert settings.initial_peers == (PEER, PEER.replace("31337", "31338"))
    assert settings.listen == ("/ip4/0.0.0.0/tcp/0",)


def test_switches_read_variables_and_file_under_their_own_names(monkeypatch, tmp_path):
    monkeypatch.setenv("PEER_UNTIL_DONE", "true")
    monkeypatch.setenv("PEER_NO_LOCAL_DISCOVERY", "1")
    monkeypatch.setenv("PEER_JSON", "yes")
    write_config(tmp_path, "client_mode = true\nforce = true")
    settings = JoinSettings.load(run_id="demo", until_done=None)
    assert settings.until_done
    assert settings.client_mode
    assert not settings.local_discovery
    assert ObserveSettings.load().json_output
    assert ExportSettings.load(output="x").force


def test_a_flag_turns_off_what_a_variable_or_the_file_turned_on(monkeypatch, tmp_path):
    monkeypatch.setenv("PEER_UNTIL_DONE", "true")
    write_config(tmp_path, "client_mode = true\nno_local_discovery = true")
    settings = JoinSettings.load(run_id="demo", until_done=False, client_mode=False, no_local_discovery=False)
    assert (settings.until_done, settings.client_mode, settings.local_discovery) == (False, False, True)


def test_json_may_stand_in_the_file(tmp_path):
    write_config(tmp_path, "json = true")
    assert ObserveSettings.load().json_output


def test_an_empty_variable_is_none(monkeypatch):
    monkeypatch.setenv("PEER_MAX_EPOCHS", "")
    assert JoinSettings.load(run_id="demo").max_epochs is None


def test_the_home_is_the_flag_the_variable_or_the_user_data_directory(monkeypatch, tmp_path):
    assert Settings.load(home="~/elsewhere").home == tmp_path.home() / "elsewhere"
    assert Settings.load().home == tmp_path
    monkeypatch.delenv("PEER_HOME")
    monkeypatch.setenv("XDG_DATA_HOME", "/data")
    assert str(Settings.load().home) == "/data/peer"
    monkeypatch.setenv("XDG_DATA_HOME", "relative, so not valid")
    assert default_home() == tmp_path.home() / ".local/share/peer"


def test_the_file_of_the_home_that_a_flag_names_is_read(tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    write_config(other, "threads = 7")
    write_config(tmp_path, "threads = 5")
    assert JoinSettings.load(run_id="demo", home=str(other)).threads == 7


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        ({}, "--run-id is missing; give it, or set PEER_RUN_ID, or put run_id into"),
        ({"role": "trianer"}, "--role: must be 'trainer', 'aggregator', 'monitor', 'stage' or 'both', not 'trianer'"),
        ({"threads": "many"}, "--threads: must be a whole number, not 'many'"),
        ({"threads": "0"}, "--threads: must be greater than or equal to 1, not '0'"),
        ({"max_epochs": "-1"}, "--max-epochs: must be greater than or equal to 1, not '-1'"),
        ({"log_format": "xml"}, "--log-format: must be 'text' or 'json', not 'xml'"),
        ({"name": "a\nb"}, "--name: must match pattern"),
        ({"name": ""}, "--name: is empty; give a value, or leave it out"),
        ({"home": ""}, "--home: is empty"),
        ({"initial_peers": [PEER, ""]}, "--initial-peers: is empty"),
        ({"role": "monitor", "max_epochs": "3"}, "--max-epochs: a monitor plays no epochs"),
        ({"client_mode": True, "listen": ["/ip4/0.0.0.0/tcp/1"]}, "leave out --listen or --client-mode"),
        ({"listen": ["/ip4/0.0.0.0/udp/1/quic"]}, "no transport udp/PORT/quic here; there are tcp/PORT, tcp/PORT/ws"),
        ({"listen": ["/ip4/0.0.0.0/tcp/1/wss"]}, "tcp/PORT/wss needs a certificate; listen on tcp/PORT/ws"),
        ({"listen": [PEER]}, "names a peer; where to listen is like"),
        ({"initial_peers": [PEER[:-1]]}, "is not a PeerID (12D3KooW…); copy it whole from `peer id` there"),
        ({"listen": ["localhost:80"]}, "--listen: 'localhost:80' is not a multiaddr; it must look like /ip4/"),
        (
            {"initial_peers": [PEER, PEER.partition("/p2p")[0]]},
            "must end in its PeerID, as /ip4/203.0.113.7/tcp/31337/p2p/12D3KooW…",
        ),
    ],
)
def test_a_wrong_flag_is_named_with_its_value(flags, sentence):
    with pytest.raises(UsageError) as raised:
        JoinSettings.load(**({"run_id": "demo"} if flags else {}), **flags)
    assert sentence in str(raised.value)


def test_a_wrong_variable_is_named(monkeypatch):
    monkeypatch.setenv("PEER_UNTIL_DONE", "perhaps")
    with pytest.raises(UsageError, match=r"^PEER_UNTIL_DONE: must be true or false, not 'perhaps'$"):
        JoinSettings.load(run_id="demo")


def test_a_wrong_key_in_the_file_is_named_with_the_file(tmp_path):
    write_config(tmp_path, "threads = 0")
    with pytest.raises(UsageError, match=r"config\.toml: threads: must be greater than or equal to 1, not 0$"):
        JoinSettings.load(run_id="demo")


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("threads = 1.5", "threads: must be a whole number, not 1.5"),
        ("name = 3", "name: must be a text, not 3"),
        ("listen = 3", "listen: must be a list, not 3"),
        ("token = 3", "token: must be a text, not 3"),
        ("data = [3]", "data: must be a path, not 3"),
    ],
)
def test_a_wrong_type_in_the_file_is_named_in_its_writers_words(tmp_path, text, sentence):
    write_config(tmp_path, text)
    with pytest.raises(UsageError) as raised:
        JoinSettings.load(run_id="demo")
    assert str(raised.value) == f"{tmp_path}/config.toml: {sentence}"


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("thread = 1", "unknown key 'thread'; did you mean 'threads'"),
        ("xyzzy = 2", "unknown key 'xyzzy'; it may have"),
        ("threads = ", "is not TOML: Invalid value"),
        ("threads = " + "[" * 10_000, "is not TOML: it is nested too deeply"),
        ("threads = " + "1" * 5000, "is not TOML: it has a number of thousands of digits"),
        ('home = "x"', "unknown key 'home'"),
    ],
)
def test_a_faulty_file_is_explained_to_every_command(tmp_path, text, sentence):
    write_config(tmp_path, text)
    with pytest.raises(UsageError) as raised:
        Settings.load()
    assert str(tmp_path / "config.toml") in str(raised.value)
    assert sentence in str(raised.value)


@pytest.mark.parametrize(
    "address",
    [
        "/ip4/0.0.0.0/tcp/0",
        "/ip6/::/tcp/31337",
        "/dns4/peer.example.org/udp/4001/quic-v1",
        "/dns/peer.example.org/tcp/443/wss",
        f"{PEER}/p2p-circuit",
    ],
)
def test_well_formed_addresses_pass(address):
    assert check_address(address) == address


@pytest.mark.parametrize(
    "address",
    [
        "",
        "/",
        "ip4/1.2.3.4/tcp/1",
        "/ip4/1.2.3/tcp/1",
        "/ip6/1.2.3.4/tcp/1",
        "/ip4/1.2.3.4/tpc/1",
        "/ip4/1.2.3.4/tcp/65536",
        "/ip4/1.2.3.4/tcp/one",
        "/ip4/1.2.3.4/tcp/1/p2p",
        "/ip4/1.2.3.4/tcp/1/p2p/nobody",
        f"{PEER[:-1]}0",
        f"{PEER}/p2p-circuit/p2p",
        f"{PEER}/tls",
        "/ip4/1.2.3.4/udp/1/quic",
        "/ip4/1.2.3.4/udp/1",
        "/ip4/1.2.3.4/tcp/1/",
        "/dns/-x-/tcp/1",
        "/ip4/1.2.3.4/tcp/٣",
        "/" * 10_000,
    ],
)
def test_malformed_addresses_are_refused(address):
    with pytest.raises(ValueError, match=r"multiaddr|not |no transport|unknown part"):
        check_address(address)


@pytest.mark.parametrize(
    "peer_id",
    [
        "QmYyQSo1c1Ym7orWxLYvCrM2EmxFTANf8wXmmE7DWjhx5N",  # RSA, as a plain hivemind node has
        "16Uiu2HAm3URHbYdzkgM33tXjDtqRbGg1PTFoSgTVsTYgcYxZ5VTF",  # secp256k1
    ],
)
def test_an_initial_peer_may_have_another_kind_of_key(peer_id):
    address = f"/ip4/203.0.113.7/tcp/31337/p2p/{peer_id}"
    assert check_peer_address(address) == address
    with pytest.raises(ValueError, match="is not a PeerID"):
        check_peer_address(address[:-1])


def test_an_initial_peer_needs_a_peer_id_and_a_port():
    assert check_peer_address(PEER) == PEER
    with pytest.raises(ValueError, match="which peer"):
        check_peer_address("/ip4/1.2.3.4/tcp/1")
    with pytest.raises(ValueError, match="port 0"):
        check_peer_address(PEER.replace("31337", "0"))
