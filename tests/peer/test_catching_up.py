"""When a member stops waiting for what the others have decided, and takes their state."""

from peer.catching_up import BEHIND_SECONDS, CATCH_UP_EPOCHS, SILENCE_SECONDS, CatchingUp


def test_who_is_one_epoch_behind_is_left_behind_after_a_while() -> None:
    catching_up = CatchingUp(0.0)
    catching_up.look(7, None, 60.0, ahead=False)
    catching_up.look(7, None, 61.0, ahead=True)
    assert not catching_up.is_left_behind(61.0 + BEHIND_SECONDS)
    assert catching_up.is_left_behind(61.1 + BEHIND_SECONDS)


def test_whose_epoch_is_everybodys_is_not_left_behind() -> None:
    catching_up = CatchingUp(0.0)
    catching_up.look(7, None, 1.0, ahead=True)
    catching_up.look(8, None, 2.0, ahead=False)
    assert not catching_up.is_left_behind(1000.0)
    catching_up.look(8, None, 1000.0, ahead=True)
    assert not catching_up.is_left_behind(1001.0)


def test_what_was_decided_is_waited_for_as_long_as_it_comes() -> None:
    catching_up = CatchingUp(0.0)
    for second in range(100):
        catching_up.look(7, second, float(second), ahead=True)
        assert not catching_up.is_left_behind(float(second))
        assert not catching_up.is_lost(1, 0.0, float(second))
    assert catching_up.is_left_behind(100.0 + SILENCE_SECONDS)
    assert catching_up.is_lost(1, 0.0, 100.0 + SILENCE_SECONDS)


def test_who_is_many_epochs_behind_does_not_wait() -> None:
    assert CatchingUp(0.0).is_lost(CATCH_UP_EPOCHS + 1, 0.0, 0.1)
    assert not CatchingUp(0.0).is_lost(CATCH_UP_EPOCHS, 0.0, 0.1)
