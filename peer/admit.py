"""Admitting a peer to a run of which this home is the organiser."""

import base64
import time

from peer.errors import UsageError
from peer.home import Home
from protocols.admission import FOR_EVER, Token
from protocols.identity import IdentityError, parse_peer_id
from protocols.signed import Signer

DAY_SECONDS = 86_400.0
MAX_DAYS = 10_000_000
"""More does not fit into a token."""


def token_for(home: Home, run_id: str, peer_id: str, days: float | None) -> str:
    """The token of that peer, as `peer join --token` takes it. Raises UsageError."""
    manifest = home.manifest(run_id)
    if manifest is None:
        raise UsageError(f"the manifest of {run_id} is not in {home.path}; only its organiser admits")
    if manifest.admission.policy != "token":
        raise UsageError(f"{run_id} admits by the policy {manifest.admission.policy!r}, without tokens")
    identity = home.identity()
    if identity.peer_id != manifest.organiser:
        raise UsageError(f"only {manifest.organiser}, the organiser of {run_id}, admits; you are {identity.peer_id}")
    try:
        peer = parse_peer_id(peer_id)
    except IdentityError as error:
        raise UsageError(f"{peer_id}: {error}") from error
    if days is not None and not 0 < days <= MAX_DAYS:
        raise UsageError(f"--days: must be more than 0 and at most {MAX_DAYS}, not {days:g}; else leave it out")
    expires = FOR_EVER if days is None else time.time() + days * DAY_SECONDS
    statement = Signer(identity, run_id, time.time_ns()).sign(Token(peer=peer, expires=expires), 0)
    return base64.urlsafe_b64encode(statement.wire).decode()
