"""Every failure becomes one sentence on stderr and an exit code: 0 well, 1 failed, 2 bad usage, 3 no daemon here."""

import os
import sys
from collections.abc import Callable
from difflib import get_close_matches
from typing import Any

import typer

from peer.errors import PeerError

FAILED = 1
BAD_USAGE = 2
_INTERRUPTED = 130
"""What typer makes of Ctrl-C."""


def run_reporting_errors(command: Callable[[], Any]) -> int:
    """The exit code of `command`, after the sentence that says what was wrong and what to do."""
    try:
        exit_code = int(command() or 0)
    except PeerError as error:
        return _say(str(error), error.exit_code)
    except typer.TyperException as error:
        return _say(_usage_sentence(error), BAD_USAGE)
    except (KeyboardInterrupt, typer.Abort):
        exit_code = _INTERRUPTED
    except OSError as error:
        return _say(f"{error.filename or 'the system'}: {error.strerror or error}", FAILED)
    except Exception as error:
        if os.environ.get("PEER_DEBUG"):
            raise
        return _say(f"internal error, {type(error).__name__}: {error}; PEER_DEBUG=1 shows where", FAILED)
    return _say("interrupted", FAILED) if exit_code == _INTERRUPTED else exit_code


def _say(message: str, exit_code: int) -> int:
    sys.stderr.write(f"peer: {' '.join(message.split())}\n")
    return exit_code


def _usage_sentence(error: typer.TyperException) -> str:
    """typer's message, with the closest option when one was mistyped, and where help is."""
    context = getattr(error, "ctx", None)
    message = error.format_message().rstrip(".?").replace(". Did you mean", "; did you mean")
    if message.startswith("No such option"):
        option = getattr(error, "option_name", "")
        parameters = context.command.params if context else []
        known = [text for parameter in parameters for text in (*parameter.opts, *parameter.secondary_opts)]
        close = get_close_matches(option, known, n=1)
        message = f"no such option {option}" + (f"; did you mean {close[0]}" if close else "")
    path = context.command_path if context else "peer"
    return (
        f"{message[0].lower()}{message[1:]}? See `{path} --help`"
        if "did you mean" in message
        else (f"{message[0].lower()}{message[1:]}; see `{path} --help`")
    )
