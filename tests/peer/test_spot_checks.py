"""What nobody else does once more is as good as it was."""

from typing import Any

from peer.swarm.arbiter import Given
from peer.swarm.client import Reply
from peer.swarm.router import PATIENCE, UNTIMELY_SECONDS, Router
from peer.swarm.spot_checks import SpotChecks
from protocols.identity import PeerId
from protocols.signed import Signer
from protocols.swarm.agreement import Product
from tests.peer.simulated_swarm import identity
from tests.peer.test_router import INPUTS, WORK, Client, routed

HONEST, LIAR = identity(0).peer_id, PeerId("liar")
SECONDS = 2 * UNTIMELY_SECONDS / PATIENCE


class Arbiter:
    """Has nothing to settle."""

    async def given(self, reply: Reply, _assignment: Any) -> Given:
        return Given(reply, Product(None, 1.0))


def test_a_fellow_who_says_that_no_work_is_of_its_epoch_does_not_end_what_others_have_done() -> None:
    """For which the keeper of the board would be passed over."""

    async def scenario(router: Router, client: Client) -> None:
        client.outcomes[LIAR] = "early"
        checks = SpotChecks(router, Arbiter(), None, Signer(identity(0), "run", 0), rate=1.0)  # type: ignore[arg-type]
        peer, reply = await checks.ask(WORK, [INPUTS], [])
        assert (peer, reply.answer.outcome) == (HONEST, "done")
        assert not checks.checked

    routed({HONEST: SECONDS, LIAR: 0.0}, scenario)
