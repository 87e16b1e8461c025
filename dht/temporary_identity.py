"""An identity for a node that comes and goes."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from protocols.identity import Identity


@contextmanager
def temporary_identity() -> Iterator[tuple[Identity, Path]]:
    """A new identity, and its key's file as p2pd reads it, which lasts as long as the context."""
    identity = Identity.generate()
    with tempfile.TemporaryDirectory(prefix="peer-identity-") as directory:  # its mode is 0700
        path = Path(directory) / "identity.key"
        path.touch(mode=0o600)
        path.write_bytes(identity.to_libp2p())
        yield identity, path
