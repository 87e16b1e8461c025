"""Who may take part: everybody, who is on the list, or who has the organiser's token."""

import pytest

from protocols import manifest as rules
from protocols.admission import FOR_EVER, Admission, Token
from protocols.identity import Identity
from protocols.manifest import Data, DataParallel, Manifest, Model, Sgd
from protocols.rejection import Reason, Rejected
from protocols.signed import Signer

ORGANISER, MEMBER, STRANGER = (Identity.from_seed(bytes([number]) * 32) for number in (1, 2, 3))
NOW = 1_800_000_000.0


def run(admission: rules.Admission, name: str = "admitted") -> Manifest:
    return Manifest(
        name=name,
        organiser=ORGANISER.peer_id,
        model=Model(architecture="mlp"),
        data=Data(dataset="digits"),
        training=DataParallel(target_batch=100, optimizer=Sgd(learning_rate=0.1)),
        epochs=10,
        admission=admission,
    )


BY_TOKEN = run(rules.Admission(policy="token"))


def token(
    peer: Identity = MEMBER, by: Identity = ORGANISER, of: Manifest = BY_TOKEN, expires: float = FOR_EVER
) -> bytes:
    return Signer(by, of.run_id, 1).sign(Token(peer=peer.peer_id, expires=expires), 0).wire


def refused(admission: Admission, peer: Identity, shown: bytes = b"", now: float = NOW) -> Reason:
    with pytest.raises(Rejected) as rejection:
        admission.admit(peer.peer_id, shown, now)
    return rejection.value.reason


def test_an_open_run_takes_everybody() -> None:
    admission = Admission(run(rules.Admission()))
    admission.admit(STRANGER.peer_id, b"", NOW)
    admission.require(MEMBER.peer_id, NOW)
    admission.check_listed([STRANGER.peer_id])


def test_a_list_takes_those_on_it_and_the_organiser() -> None:
    admission = Admission(run(rules.Admission(policy="allowlist", peers=(MEMBER.peer_id,))))
    admission.admit(MEMBER.peer_id, b"", NOW)
    admission.admit(ORGANISER.peer_id, b"", NOW)
    admission.check_listed([ORGANISER.peer_id, MEMBER.peer_id])
    assert refused(admission, STRANGER, token(STRANGER)) is Reason.NOT_ADMITTED
    with pytest.raises(Rejected):
        admission.check_listed([MEMBER.peer_id, STRANGER.peer_id])


def test_a_token_takes_its_peer_from_when_it_has_shown_it() -> None:
    admission = Admission(BY_TOKEN)
    with pytest.raises(Rejected):
        admission.require(MEMBER.peer_id, NOW)
    admission.admit(MEMBER.peer_id, token(), NOW)
    admission.require(MEMBER.peer_id, NOW)
    admission.require(ORGANISER.peer_id, NOW)


@pytest.mark.parametrize(
    ("peer", "shown", "reason"),
    [
        (MEMBER, b"", Reason.NOT_ADMITTED),
        (STRANGER, token(MEMBER), Reason.NOT_ADMITTED),
        (MEMBER, token(expires=NOW - 1), Reason.NOT_ADMITTED),
        (MEMBER, token(by=STRANGER), Reason.WRONG_SENDER),
        (MEMBER, token(by=MEMBER), Reason.WRONG_SENDER),
        (MEMBER, token(of=run(rules.Admission(policy="token"), "another")), Reason.WRONG_RUN),
        (MEMBER, token()[:-1] + bytes([token()[-1] ^ 1]), Reason.BAD_SIGNATURE),
        (MEMBER, b"rubbish", Reason.MALFORMED),
    ],
)
def test_no_other_token_takes_anybody(peer: Identity, shown: bytes, reason: Reason) -> None:
    admission = Admission(BY_TOKEN)
    assert refused(admission, peer, shown) is reason
    with pytest.raises(Rejected):
        admission.require(peer.peer_id, NOW)


def test_a_token_ends_when_its_time_is_over() -> None:
    admission = Admission(BY_TOKEN)
    admission.admit(MEMBER.peer_id, token(expires=NOW + 10), NOW)
    admission.require(MEMBER.peer_id, NOW + 9)
    with pytest.raises(Rejected, match="expired"):
        admission.require(MEMBER.peer_id, NOW + 11)


@pytest.mark.parametrize(
    "wrong",
    [
        {"policy": "allowlist"},
        {"policy": "open", "peers": (MEMBER.peer_id,)},
        {"policy": "token", "peers": (MEMBER.peer_id,)},
        {"policy": "allowlist", "peers": ("somebody",)},
        {"policy": "friends"},
    ],
)
def test_a_policy_that_makes_no_sense_is_refused(wrong: dict) -> None:
    with pytest.raises(ValueError, match=r"policy|peers|allowlist"):
        rules.Admission(**wrong)


def test_who_admits_by_token_has_an_organiser() -> None:
    with pytest.raises(ValueError, match="organiser"):
        Manifest.model_validate(BY_TOKEN.model_dump() | {"organiser": None})
