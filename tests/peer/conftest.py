import pytest

from peer.compute_threads import use_threads
from peer.rounds import chunk_frames


@pytest.fixture(scope="session", autouse=True)
def _one_torch_thread():
    """Threads that wait for each other on a busy machine make small models a hundred times slower."""
    use_threads(1)


@pytest.fixture
def every_chunk_in_a_frame_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """As those of a large model are: a member can be killed, and do harm, between any two."""
    monkeypatch.setattr(chunk_frames, "TOGETHER_BYTES", 0)
