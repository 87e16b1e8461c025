"""The company of a member: who else is there, who may not be, and what the organiser has directed."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import asynccontextmanager

import structlog

from dht.border import Border
from dht.interfaces import Records, Transport
from peer.directives import Directives
from peer.manifests import MANIFEST_KIND
from peer.membership import Mates, Membership
from peer.tasks import beside
from protocols.admission import Admission
from protocols.identity import PeerId
from protocols.manifest import Manifest
from protocols.records import RosterEntry
from protocols.rejection import Reason, Rejected
from protocols.signed import Signer

log = structlog.get_logger()


class Company:
    def __init__(
        self,
        transport: Transport,
        records: Records,
        signer: Signer,
        manifest: Manifest,
        border: Border,
        *,
        entry: Callable[[], tuple[RosterEntry, int]],
        on_word: Callable[[PeerId, bool], None],
        on_left: Callable[[PeerId], None],
        on_lost: Callable[[PeerId], None],
        on_directed: Callable[[], None],
        on_banned: Callable[[], None],
        directives: Iterable[bytes] = (),
        contacts: int | None = None,
        mates: Mates | None = None,
    ) -> None:
        """`entry`: what to say of ourselves, and our epoch.

        `on_word`: a member has said where it is; the flag says whether we have just found it. `on_left`: one has
        departed, or is banned. `on_lost`: one is not heard of any more; it may live. `on_directed`: the organiser has
        said something new. `on_banned`: this peer is banned.

        `directives`: what was known of the organiser's at the last start, signed. `contacts` and `mates`: as of
        `Membership`.
        """
        self.admission = Admission(manifest)
        self._transport, self._manifest = transport, manifest
        self._on_word, self._on_left, self._on_directed, self._on_banned = on_word, on_left, on_directed, on_banned
        self.membership = Membership(
            transport, records, signer, entry, self._spoke, on_left, on_lost, border, self.admission, contacts, mates
        )
        self.directives = Directives(transport, records, signer, manifest, border, self._known, self._directed)
        self.directives.recall(directives)

    async def start(self) -> None:
        """From now on others are answered."""
        self.ban_all(self.directives.log.bans)
        await self.membership.start()
        await self.directives.start()
        await self._transport.serve_requests(MANIFEST_KIND, self._show_manifest)

    @asynccontextmanager
    async def kept(self) -> AsyncIterator[None]:
        """Keeps it while the context lasts."""
        async with beside(self.membership.run()), beside(self.directives.run()), beside(self._keep_banning()):
            yield

    def ban(self, peer: PeerId, why: str) -> None:
        """Has nothing more to do with `peer` in this run."""
        if peer in self.admission.banned:
            return
        self.admission.ban(peer, why)
        if peer == self._transport.peer_id:
            log.error("this peer is banned from the run", reason=why)
            self._on_banned()
            return
        member = self.membership.banish(peer, why)
        log.warning("banned", peer=peer, member=member, reason=why)
        self._transport.ban(peer, why)
        self._on_left(peer)

    def ban_all(self, bans: Mapping[PeerId, str]) -> None:
        """Those who have seen the evidence have banned whom it proves guilty; we come too late for it."""
        for peer, why in bans.items():
            self.ban(peer, why)

    def _spoke(self, peer: PeerId, new: bool) -> None:
        member = self.membership.roster.get(peer)
        if member is not None:
            self.directives.hear(member.entry.directives)
        self._on_word(peer, new)

    def _known(self) -> Iterable[tuple[PeerId, bytes | None]]:
        return [(member.peer, member.entry.directives) for member in self.membership.roster]

    def _directed(self) -> None:
        log.info("new directives", known=len(self.directives.log), holding=len(self.directives.log.holding))
        self.membership.announce()
        self._on_directed()

    async def _keep_banning(self) -> None:
        """Bans whom the organiser bans; members among them are told why first."""
        while True:
            banned = {p: why for p, why in self.directives.log.bans.items() if p not in self.admission.banned}
            if not banned:
                await self.directives.changed.wait()
            async with asyncio.TaskGroup() as tasks:
                for peer, why in banned.items():
                    tasks.create_task(self._tell_and_ban(peer, why))

    async def _tell_and_ban(self, peer: PeerId, why: str) -> None:
        if self.membership.roster.get(peer) is not None:
            await self.directives.tell(peer)
        self.ban(peer, why)

    async def _show_manifest(self, _peer: PeerId, run_id: bytes) -> bytes:
        if run_id != self._manifest.run_id.encode():
            raise Rejected(Reason.WRONG_RUN, "this is another run")
        return self._manifest.to_bytes()
