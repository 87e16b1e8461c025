"""Why the network process did not start, in a sentence that says what to change, instead of its own words."""

import re

from dht.p2pd import P2pdError

_TIME = re.compile(r"\d{4}/\d\d/\d\d \d\d:\d\d:\d\d ")
_CAUSES = {
    r"listen \w+ (\S+): bind: address already in use": (
        "{} is in use; stop what listens there (another daemon?), or give another port, or 0 for a free one"
    ),
    r"listen \w+ (\S+): bind: cannot assign requested address": (
        "this machine has no address {}; listen on /ip4/0.0.0.0/tcp/PORT, and tell a router's address with --announce"
    ),
    r"listen \w+ (\S+): bind: permission denied": "you may not listen at {}; give a port above 1023",
    r"lookup (\S+)( on \S+)?: no such host": "there is no host {}; listen on /ip4/0.0.0.0/tcp/PORT",
}


def explain_network_error(error: P2pdError) -> str:
    """The sentence for the user."""
    words = _TIME.sub("", str(error))
    for cause, mend in _CAUSES.items():
        if found := re.search(cause, words):
            return f"--listen: {mend.format(found[1])}"
    return f"{words}; `peer doctor` examines this machine's network"
