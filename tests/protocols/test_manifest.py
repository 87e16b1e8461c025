"""The run id names the manifest as it is."""

from protocols.manifest import Manifest
from tests.protocols.test_hostile_contents import MANIFEST


def test_a_copy_with_another_field_is_another_run() -> None:
    first = MANIFEST.run_id
    other = MANIFEST.model_copy(update={"epochs": MANIFEST.epochs + 1})
    assert MANIFEST.run_id == first != other.run_id
    assert Manifest.from_bytes(other.to_bytes(), other.run_id) == other
