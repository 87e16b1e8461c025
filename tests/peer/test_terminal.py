"""Nothing that came over the network steers the terminal of who reads the log."""

import logging

import pytest
import structlog

from dht.gate import decode_refusal, encode_refusal
from peer import logs

ESCAPE = "\x1b]0;owned\x07\x9b2J"


@pytest.fixture(autouse=True)
def logging_as_before():
    root = logging.getLogger()
    before = root.handlers[:], root.level
    yield
    root.handlers[:], root.level = before
    structlog.reset_defaults()


@pytest.mark.parametrize("log_format", ["text", "json"])
def test_no_control_characters_in_the_log(log_format, capsys):
    logs.configure(log_format)
    structlog.get_logger("peer.somewhere").info("refused", peer=ESCAPE, error=f"{ESCAPE}\r\n")
    logging.getLogger("dht").warning("refused: %s", ESCAPE)
    try:
        raise ValueError(ESCAPE)
    except ValueError:
        logging.getLogger("dht").exception("failed")
    said = capsys.readouterr().err
    assert said.count("owned") >= 3
    assert not set(said) & set("\x1b\x07\x9b\r")


def test_a_refusal_is_made_printable_when_it_comes_in():
    reason, message = decode_refusal(encode_refusal(ESCAPE, ESCAPE))
    assert reason.isprintable()
    assert message.isprintable()
    assert "owned" in message
