"""The organiser's end of directives: what it may order of a run of its own, and by which signed word."""

import base64
import math
import time
from contextlib import suppress
from typing import Any, Protocol

from pydantic import ValidationError

from peer.control_client import ControlClient
from peer.directive_store import saved_log
from peer.errors import PeerError, UsageError
from peer.hints import command
from peer.home import Home
from peer.setting_sources import what_is_wrong
from peer.status import DirectivesStatus, DirectiveStatus
from protocols.directives import (
    MAX_DIRECTIVES,
    SETTABLE,
    Ban,
    Directive,
    DirectiveLog,
    Order,
    Pause,
    Resume,
    Set,
    check_order,
)
from protocols.identity import IdentityError, PeerId, parse_peer_id
from protocols.manifest import Manifest
from protocols.rejection import Rejected
from protocols.signed import Signed, Signer

SPREAD_SECONDS = 15.0
"""After so long every member knows a directive; it is to hold from an epoch that comes later."""
FEWEST_EPOCHS = 3
"""A directive holds from so many epochs ahead at least: some members are an epoch ahead of what is seen."""


class Channel(Protocol):
    """The daemon here (`ControlClient`) or the run from outside (`OutsideView`); its methods raise PeerError."""

    def directives(self) -> DirectivesStatus:
        """What is known there."""

    def direct(self, wire: bytes) -> None:
        """Hands a signed directive over."""


def issue(
    home: Home, run_id: str, channel: Channel, order: Order, at_epoch: int | None = None
) -> tuple[Signed[Directive], DirectivesStatus]:
    """Signs the order as the next directive and hands it over; it, and what was known before it.

    Raises UsageError when the order cannot be given, PeerError when it cannot be handed over.
    """
    manifest = organised(home, run_id)
    seen = channel.directives()
    known = log_of(seen, manifest)
    _check(order, known, manifest, home, seen.epoch)
    epoch = _epoch(order, seen, manifest, at_epoch)
    number = known.next_number
    if number > MAX_DIRECTIVES:
        raise UsageError(f"{run_id} has had {MAX_DIRECTIVES} directives, the most that a run may have")
    directive = Signer(home.identity(), run_id, time.time_ns()).sign(Directive(number=number, order=order), epoch)
    channel.direct(directive.wire)
    return directive, seen


def organised(home: Home, run_id: str) -> Manifest:
    """The manifest of a run whose organiser this home is. Raises UsageError when it is not."""
    manifest = home.manifest(run_id)
    if manifest is None:
        raise UsageError(f"the manifest of {run_id} is not in {home.path}; only its organiser directs it")
    if manifest.organiser is None:
        raise UsageError(f"{run_id} has no organiser, so nobody directs it; make one of your own: peer run create")
    me = home.identity().peer_id
    if me != manifest.organiser:
        raise UsageError(f"only {manifest.organiser}, the organiser of {run_id}, directs it; you are {me}")
    return manifest


def ban_of(peer_id: str, why: str) -> Ban:
    """Raises UsageError."""
    try:
        peer = parse_peer_id(peer_id)
    except IdentityError as error:
        raise UsageError(f"{peer_id}: {error}") from error
    try:
        return Ban(peer=peer, why=why)
    except ValidationError as error:
        raise UsageError(f"--why: {_wrong(error)}") from error


def change_of(words: list[str]) -> Set:
    """What `FIELD=VALUE …` says. Raises UsageError."""
    changes: dict[str, Any] = {}
    for word in words:
        name, equals, text = word.partition("=")
        if not equals:
            raise UsageError(f"{word!r} is no change; write FIELD=VALUE, for example learning_rate=0.05")
        if name not in SETTABLE:
            raise UsageError(f"{name} cannot change while a run lives; what can: {', '.join(SETTABLE)}")
        if name in changes:
            raise UsageError(f"{name} is given twice")
        try:
            changes[name] = int(text) if name == "target_batch" else float(text)
        except ValueError:
            raise UsageError(f"{word}: {text!r} is no {'whole ' * (name == 'target_batch')}number") from None
    try:
        return Set(**changes)
    except ValidationError as error:
        raise UsageError(f"{error.errors()[0]['loc'][0]}: {_wrong(error)}") from error


def _wrong(error: ValidationError) -> str:
    """What an author wrote wrong, in the words of every other setting."""
    return what_is_wrong(error.errors(include_url=False)[0])


def log_of(seen: DirectivesStatus, manifest: Manifest) -> DirectiveLog:
    """What was seen, verified. Raises UsageError when it is of another run."""
    known = DirectiveLog(manifest)
    try:
        for statement in seen.statements:
            known.take(base64.b64decode(statement))
    except Rejected as error:
        raise UsageError(f"what is known of {seen.run} is not its organiser's: {error}") from error
    return known


def status_of_log(run_id: str, known: DirectiveLog, epoch: int, epochs_per_second: float) -> DirectivesStatus:
    holding = {directive.wire for directive in known.holding}
    return DirectivesStatus(
        run=run_id,
        epoch=epoch,
        epochs_per_second=epochs_per_second,
        directives=tuple(status_of(directive, holds=directive.wire in holding) for directive in known.all),
        statements=tuple(base64.b64encode(wire).decode() for wire in known.wires),
    )


def status_here(home: Home, run_id: str) -> DirectivesStatus:
    """What the daemon here knows; where none is up, what was known here last (of epoch 0). Raises UsageError."""
    with suppress(PeerError):
        return ControlClient(home, run_id).directives()
    manifest = home.manifest(run_id)
    if manifest is None:
        raise UsageError(f"the manifest of {run_id} is not in {home.path}; join the run to get it from the swarm")
    return status_of_log(run_id, saved_log(home.directives_path(run_id), manifest), 0, 0.0)


def status_of(directive: Signed[Directive], *, holds: bool) -> DirectiveStatus:
    order = directive.body.order
    return DirectiveStatus(
        number=directive.body.number,
        epoch=directive.epoch,
        action=order.action,
        peer=order.peer if isinstance(order, Ban) else None,
        why=order.why if isinstance(order, Ban) else None,
        changes=order.changes if isinstance(order, Set) else {},
        holds=holds,
    )


def _check(order: Order, known: DirectiveLog, manifest: Manifest, home: Home, epoch: int) -> None:
    """Raises UsageError when the order makes no sense now."""
    run = manifest.run_id
    paused = known.paused(manifest.epochs)  # at whatever epoch a pause begins
    try:
        check_order(manifest, order)
    except ValueError as error:
        raise UsageError(str(error)) from error
    match order:
        case Ban(peer=peer) if PeerId(peer) in known.bans:
            raise UsageError(f"{peer} is banned already: {known.bans[peer] or 'no reason was given'}")
        case Pause() if paused:
            go_on = command(home.path, "run", "resume", run)
            raise UsageError(f"{run} is paused already; go on with: {go_on}")
        case Resume() if not paused:
            raise UsageError(f"{run} is not paused")
        case Pause() | Set() if epoch >= manifest.epochs:
            raise UsageError(f"{run} has reached its last epoch, {manifest.epochs}; nothing is left to change")


def _epoch(order: Order, seen: DirectivesStatus, manifest: Manifest, at_epoch: int | None) -> int:
    """From which the order holds. Raises UsageError."""
    if isinstance(order, Ban | Resume):
        return seen.epoch
    ahead = max(FEWEST_EPOCHS, math.ceil(SPREAD_SECONDS * seen.epochs_per_second))
    epoch = seen.epoch + ahead if at_epoch is None else at_epoch
    if epoch <= seen.epoch:
        raise UsageError(f"--at-epoch: the run is at epoch {seen.epoch} already; give a later one, or leave it out")
    if epoch >= manifest.epochs:
        known_by = "" if at_epoch is not None else f", and until epoch {epoch} not every member would know of it"
        raise UsageError(f"the run ends at epoch {manifest.epochs}{known_by}; give an earlier one with --at-epoch")
    return epoch
