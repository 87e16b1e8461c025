import pytest

from dht.p2pd import P2pdError
from peer.network_errors import explain_network_error

FAILED = "p2pd did not start: 2026/11/24 22:37:52 failed to listen on any addresses: "


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (
            f"{FAILED}[listen tcp4 127.0.0.1:37275: bind: address already in use]",
            "--listen: 127.0.0.1:37275 is in use; stop what listens there",
        ),
        (
            f"{FAILED}[listen udp4 0.0.0.0:4001: bind: address already in use]",
            "--listen: 0.0.0.0:4001 is in use; stop what listens there",
        ),
        (
            f"{FAILED}[listen tcp6 [2001:db8::1]:0: bind: cannot assign requested address]",
            "--listen: this machine has no address [2001:db8::1]:0; listen on /ip4/0.0.0.0/tcp/PORT",
        ),
        (
            f"{FAILED}[listen tcp4 0.0.0.0:80: bind: permission denied]",
            "--listen: you may not listen at 0.0.0.0:80; give a port above 1023",
        ),
        (
            f"{FAILED}[listen tcp4: lookup nosuch.invalid on 192.0.2.1:53: no such host]",
            "--listen: there is no host nosuch.invalid; listen on",
        ),
        (f"{FAILED}[listen tcp4 127.0.0.1:1: bind: x]", "p2pd did not start: failed to listen on any addresses: ["),
        ("p2pd did not start in 20 seconds", "p2pd did not start in 20 seconds; `peer doctor` examines"),
    ],
)
def test_what_p2pd_says_becomes_what_to_do(words, sentence):
    told = explain_network_error(P2pdError(words))
    assert told.startswith(sentence)
    assert "2026/" not in told
