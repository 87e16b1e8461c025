"""Codecs of a member whose chunks and results are what nobody takes, though all their digests are right."""

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np

from peer.participant import Participant
from protocols.codecs import Codec, Payload
from protocols.vectors import Vector


def encoding_badly(spoil: Callable[[Codec], Codec], **given: Any) -> Participant:
    participant = Participant(**given)
    plan = participant._plan
    participant._plan = dataclasses.replace(plan, codec=spoil(plan.codec))
    return participant


class EvilCodec(Codec):
    """Takes whatever it has encoded itself."""

    def __init__(self, codec: Codec) -> None:
        self.name, self._codec = codec.name, codec

    def encoded_size(self, count: int) -> int:
        return self._codec.encoded_size(count)

    def check(self, payload: Payload, count: int) -> None:
        pass

    def _is_finite(self, payload: Payload, count: int) -> bool:
        return True

    def _decode_piece(self, out: Vector, payload: Payload, count: int, start: int) -> None:
        whole = bytes(payload).ljust(self.encoded_size(count), b"\0")
        self._codec._decode_piece(out, whole, count, start)
        np.nan_to_num(out, copy=False)


class NotANumber(EvilCodec):
    def __init__(self, codec: Codec, value: float = np.nan) -> None:
        super().__init__(codec)
        self._value = value

    def encode(self, values: Vector) -> Payload:
        payload = bytearray(self._codec.encode(values))
        kind = np.float16 if self.name == "float16" else np.float32
        piece = kind(self._value).tobytes()
        payload[: len(piece)] = piece
        return payload


class TooShort(EvilCodec):
    def encode(self, values: Vector) -> Payload:
        return bytes(self._codec.encode(values))[:-4]
