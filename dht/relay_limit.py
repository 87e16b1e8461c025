"""Makes certain that a node which relays does so without the narrow limits of libp2p's default.

p2pd registers two relays under one protocol: one with the limits of its options, one with libp2p's default of 128 KiB
and two minutes for a connection. Which comes last, and so serves, is chance at every start of p2pd, and it says
nowhere which it was. A relay tells its limits to whoever reserves a place (circuit relay v2,
https://github.com/libp2p/specs/blob/master/relay/circuit-v2.md, `HopMessage`), so we ask for one as a client does,
through a p2pd that is thrown away, and start p2pd again until the right relay answers.
"""

import asyncio
import logging
from collections.abc import Sequence

from dht.addresses import on_this_machine, with_ports
from dht.control import Control, ControlError
from dht.p2pd import P2pd
from dht.temporary_identity import temporary_identity
from protocols.identity import PeerId

log = logging.getLogger(__name__)

HOP_PROTOCOL = "/libp2p/circuit/relay/0.2.0/hop"
RESERVE = b"\x08\x00"
"""`HopMessage(type=RESERVE)`."""
_LIMIT_FIELD, _DATA_FIELD = 4, 2
"""`HopMessage.limit`, `Limit.data`."""
ENOUGH_BYTES = 2**30
"""For a connection; the default is 2¹⁷, that of p2pd's options 2³²."""
MAX_STARTS = 16
"""Each is the right one with a chance of a third or better."""
ASK_SECONDS = 15.0


async def start_until_unlimited(p2pd: P2pd, control: Control, listen: Sequence[str]) -> None:
    """Starts a p2pd that relays again until it offers ENOUGH_BYTES; with a warning as it is when it never does.

    Nobody must be attached to p2pd yet. `listen`: what it was started with. Raises P2pdError.
    """
    for _ in range(MAX_STARTS):
        try:
            peer, transports = await control.identify()
            offered = await bytes_offered(peer, [*on_this_machine(listen), *transports])
        except (ControlError, TimeoutError) as error:
            log.warning("it is not known how much this relay passes for a connection: %s", error or "no answer")
            return
        if offered >= ENOUGH_BYTES:
            return
        log.debug("a relay for %d bytes a connection; p2pd is started again", offered)
        await p2pd.stop()
        await p2pd.run(with_ports(listen, transports))
    log.warning("this relay passes only 128 KiB for a connection, which is too little to train through it")


async def bytes_offered(relay: PeerId, transports: Sequence[str]) -> int:
    """How many bytes `relay` passes in each direction of a connection; 0 where it does not relay for us.

    Raises ControlError or TimeoutError when it does not answer, P2pdError when we cannot ask.
    """
    with temporary_identity() as (_, path):
        client = await P2pd.start(path, (), (), client_mode=True)
        try:
            control = Control(client.control_path)
            async with asyncio.timeout(ASK_SECONDS):
                await control.connect(relay, transports)
                answer = await control.exchange(relay, HOP_PROTOCOL, RESERVE)
        finally:
            await client.close()
    limit = _field(answer, _LIMIT_FIELD)
    data = _field(limit, _DATA_FIELD) if isinstance(limit, bytes) else 0
    return data if isinstance(data, int) else 0


def _field(message: bytes, wanted: int) -> int | bytes:
    """The value of one field of a protobuf message, 0 where it has none. Raises ControlError when it is malformed."""
    position = 0

    def varint() -> int:
        nonlocal position
        value = shift = 0
        while True:
            byte = message[position]
            position += 1
            value |= (byte & 0x7F) << shift
            shift += 7
            if not byte & 0x80:
                return value

    try:
        while position < len(message):
            field, kind = divmod(varint(), 8)
            value: int | bytes = varint()
            if kind == 2:
                position, value = position + int(value), message[position : position + int(value)]
            elif kind != 0:
                break
            if field == wanted:
                return value
    except IndexError as error:
        raise ControlError("the relay's answer is cut off") from error
    return 0
