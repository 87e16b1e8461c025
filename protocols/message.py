"""The base of every message and record body: frozen, strictly typed, validated once, on entry."""

from typing import Annotated, ClassVar, Self, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, FailFast, Field, StringConstraints, ValidationError

from protocols.encoding import DIGEST_BYTES, EncodingError, decode, encode
from protocols.identity import PeerId, parse_peer_id
from protocols.rejection import Reason, Rejected

T = TypeVar("T")

_MAX_PATH_CHARACTERS = 96


def _check_printable(text: str) -> str:
    if not text.isprintable():
        raise ValueError("has characters that cannot be printed")
    return text


Digest = Annotated[bytes, Field(min_length=DIGEST_BYTES, max_length=DIGEST_BYTES)]
"""A blake3 digest (32 bytes)."""
Peer = Annotated[PeerId, AfterValidator(parse_peer_id)]
"""A PeerID in a message; checked to be an Ed25519 one."""
MAX_COUNT = 2**53
Count = Annotated[int, Field(ge=0, le=MAX_COUNT)]
RunId = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9-]{0,31}-[a-z2-7]{26}$")]
ShortText = Annotated[str, StringConstraints(max_length=128), AfterValidator(_check_printable)]
"""For people to read: no control characters, with which a terminal could be made to do more than show it."""
Many = Annotated[tuple[T, ...], Field(strict=False), FailFast()]
"""A sequence; on the wire a list. Give `max_length` with it where a peer could make it long."""


class Item(BaseModel):
    """A part of a message, or of what is kept as one is."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class Message(Item):
    """A body that travels inside a `Signed` envelope under its class's `kind`."""

    kind: ClassVar[str]
    limit_bytes: ClassVar[int] = 64 * 1024

    def to_bytes(self) -> bytes:
        return encode(self.model_dump())

    @classmethod
    def from_bytes(cls, data: bytes | memoryview) -> Self:
        """Raises Rejected (oversized, malformed)."""
        if len(data) > cls.limit_bytes:
            raise Rejected(Reason.OVERSIZED, f"{cls.kind}: {len(data)} bytes exceed {cls.limit_bytes}")
        try:
            return cls.model_validate(decode(data, cls.limit_bytes))
        except EncodingError as error:
            raise Rejected(Reason.MALFORMED, f"{cls.kind}: {error}") from error
        except ValidationError as error:
            raise Rejected(Reason.MALFORMED, f"{cls.kind}: {first_error(error)}") from error


def first_error(error: ValidationError) -> str:
    """The first thing wrong, as `field.path: what`; a name that the sender made up is shown escaped and cut."""
    first = error.errors(include_url=False, include_input=False)[0]
    path = ".".join(str(part) for part in first["loc"]) or "body"
    return f"{ascii(path)[1:-1][:_MAX_PATH_CHARACTERS]}: {first['msg']}"
