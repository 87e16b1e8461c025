"""One agreed dealing, from the first word about it until its secret counts or its dealer is exposed.

Three kinds of evidence settle it, all checked against the dealing itself, so that it does not matter who gives them:

| evidence | a sound dealing | an unsound one |
|---|---|---|
| the secret of its commitment | counts | is exposed: dealing the secret again gives another |
| `threshold` shares of its hashes | give the secret, which counts | give a secret that exposes it, or none |
| the private key of a recipient | gives that recipient's share | a share, or it does not open, which exposes it |

So a sound dealing can only come to count and an unsound one only to be exposed, whatever comes first and whoever
hears what. And it does settle: each honest recipient has a share to give, or a key that shows that it has none.
"""

from collections.abc import Sequence

from protocols.rejection import Reason, Rejected
from protocols.verification.dealing import (
    Context,
    Dealing,
    Recipient,
    check_share,
    is_of,
    is_sound,
    open_share,
    public_key,
    reconstruct,
    threshold,
)


class Opening:
    """What is known of a dealing. Once it is settled, nothing changes it and nothing more is checked."""

    def __init__(self, dealing: Dealing, context: Context, recipients: Sequence[Recipient]) -> None:
        self.dealing = dealing
        self.context = context
        self.secret: bytes | None = None
        """Known, and the dealing sound."""
        self.is_exposed = len(dealing.sealed) != len(recipients)
        """The dealing is proved to be unsound."""
        self._recipients = recipients
        self._shares: dict[int, bytes] = {}

    @property
    def is_settled(self) -> bool:
        return self.is_exposed or self.secret is not None

    def take_secret(self, secret: bytes) -> None:
        """Raises Rejected (wrong_digest) when it is not the one that the dealer has committed to."""
        if self.is_settled:
            return
        if not is_of(self.dealing, secret, self.context):
            raise Rejected(Reason.WRONG_DIGEST, f"reveal: {self.context.dealer} has not committed to this secret")
        self._judge(secret)

    def take_share(self, index: int, share: bytes) -> None:
        """Raises Rejected (wrong_digest) when it is not the one that the dealing has for the recipient `index`."""
        if self.is_settled:
            return
        if not check_share(self.dealing, self.context, index, share):
            raise Rejected(Reason.WRONG_DIGEST, f"reveal: {self.context.dealer} has not dealt this share to {index}")
        self._shares[index] = share
        if len(self._shares) >= threshold(len(self._recipients)):
            self._judge(reconstruct(self.dealing, self._shares, self.context))

    def take_key(self, index: int, private_key: bytes) -> None:
        """Raises Rejected (wrong_digest) when it is not the private key of the recipient `index`."""
        if self.is_settled or index in self._shares:
            return
        if public_key(private_key) != self._recipients[index].key:
            raise Rejected(Reason.WRONG_DIGEST, f"reveal: not the private key of {self._recipients[index].peer}")
        try:
            share = open_share(self.dealing, self.context, index, private_key)
        except Rejected:
            self.is_exposed = True
        else:
            self.take_share(index, share)

    def _judge(self, secret: bytes | None) -> None:
        if secret is not None and is_sound(self.dealing, secret, self.context, self._recipients):
            self.secret = secret
        else:
            self.is_exposed = True
