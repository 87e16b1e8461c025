"""The links of a simulated network: when a message that is sent now leaves its sender and arrives."""

from dataclasses import dataclass
from random import Random


@dataclass(frozen=True, slots=True)
class Link:
    """How one peer is attached to the network; messages queue at its two ends as in a modem."""

    upload_bytes_per_second: float = 12.5e6
    download_bytes_per_second: float = 12.5e6
    latency_seconds: float = 0.02
    """From the peer to the middle of the network, one way: half of what two such peers see."""
    jitter_seconds: float = 0.0
    """At most this is added to a message's latency, uniformly."""
    loss: float = 0.0
    """Probability that a message is lost so often that its stream breaks (TCP repeats what is lost once)."""


@dataclass(slots=True)
class Attachment:
    """A link in use: until when its two directions are busy (virtual seconds)."""

    link: Link
    upload_free: float = 0.0
    download_free: float = 0.0


@dataclass(frozen=True, slots=True)
class Passage:
    """One message on its way."""

    departure: float
    """When its last byte has left the sender."""
    arrival: float
    lost: bool


def pass_through(sender: Attachment, receiver: Attachment, size_bytes: int, now: float, random: Random) -> Passage:
    """Sends a message of `size_bytes` through both links, behind those that already wait there."""
    up, down = sender.link, receiver.link
    departure = max(now, sender.upload_free) + size_bytes / up.upload_bytes_per_second
    sender.upload_free = departure
    jitter = random.uniform(0.0, up.jitter_seconds + down.jitter_seconds)
    reached = departure + up.latency_seconds + down.latency_seconds + jitter
    arrival = max(reached, receiver.download_free) + size_bytes / down.download_bytes_per_second
    receiver.download_free = arrival
    lost = random.random() < 1 - (1 - up.loss) * (1 - down.loss)
    return Passage(departure, arrival, lost)
