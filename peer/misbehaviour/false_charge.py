"""A validator that charges whomever it is to check, whatever comes of it."""

from typing import Any

from peer.participant import Participant
from peer.verification.account import RoundAccount
from peer.verification.checks import WRONG_UPDATE, Checks, Finding
from protocols.state import ModelState
from protocols.verification.charges import SenderCharge
from protocols.verification.duties import Duty


class Slanderer(Checks):
    async def _check_sender(self, duty: Duty, account: RoundAccount, state: ModelState) -> Finding | None:
        assert duty.sender is not None
        number = [member.peer for member in account.begin.body.members].index(duty.sender)
        chunk = duty.chunks[0]
        row = await self._shown(account, chunk, number)
        if row is None:
            return None
        charge = SenderCharge(
            begin=account.begin.wire, contribution=row.contribution, chunk=chunk, payload=bytes(row.payload)
        )
        return Finding(duty.sender, WRONG_UPDATE, charge)


def false_charge(**given: Any) -> Participant:
    """Where members do not check each other there is nobody to charge."""
    return Participant(**given, checks=Slanderer)
