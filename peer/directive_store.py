"""The directives of a run that are known here, in a file of its directory; each is verified again when it is used."""

import asyncio
import logging
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from peer.files import write_atomically
from protocols.directives import KEPT_OF_A_NUMBER, MAX_DIRECTIVES, MAX_WIRE_BYTES, DirectiveLog
from protocols.encoding import EncodingError, decode, encode
from protocols.manifest import Manifest
from protocols.rejection import Rejected

if TYPE_CHECKING:
    from dht.border import Border
    from peer.directives import Directives

_MAX_FILE_BYTES = KEPT_OF_A_NUMBER * MAX_DIRECTIVES * (MAX_WIRE_BYTES + 8)

logger = logging.getLogger(__name__)


def load_directives(path: Path) -> tuple[bytes, ...]:
    """What was saved; nothing, with a word in the log, when it cannot be read."""
    try:
        with path.open("rb") as file:
            wires = decode(file.read(_MAX_FILE_BYTES + 1), _MAX_FILE_BYTES)
    except FileNotFoundError:
        return ()
    except (OSError, EncodingError) as error:
        logger.warning("The directives in %s cannot be read, and are asked for anew: %s", path, error)
        return ()
    return tuple(wire for wire in wires if isinstance(wire, bytes)) if isinstance(wires, list) else ()


def save_directives(path: Path, wires: Iterable[bytes]) -> None:
    """Raises OSError."""
    encoded = encode(list(wires))
    write_atomically(path, lambda temporary: temporary.write_bytes(encoded))


class DirectivesFile:
    """Keeps what is known of a run's directives in a file."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = asyncio.Lock()

    async def keep_saving(self, directives: "Directives", border: "Border") -> None:
        """Saves them whenever something new is known, until cancelled."""
        while True:
            saved = directives.log.digest
            async with border.around("saving directives"):
                await self.save(directives.log)
            while directives.log.digest == saved:
                await directives.changed.wait()

    async def save(self, known: DirectiveLog) -> None:
        if not len(known):
            return
        try:
            async with self._lock:
                await asyncio.to_thread(save_directives, self._path, known.wires)
        except OSError as error:
            logger.error("directives cannot be saved; after a restart they are asked for anew: %s", error)


def saved_log(path: Path, manifest: Manifest) -> DirectiveLog:
    """The saved directives that are the organiser's."""
    known = DirectiveLog(manifest)
    for wire in load_directives(path):
        try:
            known.take(wire)
        except Rejected as error:
            logger.warning("A directive in %s is damaged and not used: %s", path, error)
    return known
