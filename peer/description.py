"""What a member says of itself, whatever kind of run it is in."""

from typing import Any

from peer.company import Company
from peer.profile import Profile
from protocols.records import RosterEntry

MAX_ADDRESSES = 16


class Description:
    def __init__(self, profile: Profile, company: Company) -> None:
        self._profile, self._company = profile, company
        self._said: tuple[dict[str, Any], RosterEntry] | None = None
        """The last one, as it was asked for and as it was made."""

    def entry(self, **state: Any) -> RosterEntry:
        """`state`: those fields of the entry that training changes. The same object as long as nothing is new."""
        profile, company = self._profile, self._company
        says: dict[str, Any] = state | {
            "expires": 0.0,
            "name": profile.name,
            "role": profile.role,
            "addresses": profile.addresses()[:MAX_ADDRESSES],
            "client_mode": profile.client_mode,
            "bandwidth_bytes_per_second": profile.bandwidth(),
            "banned": len(company.admission.banned),
            "departed": False,
            "token": profile.token,
            "directives": company.directives.log.digest,
        }
        if self._said is None or says != self._said[0]:
            self._said = says, RosterEntry(**says)
        return self._said[1]
