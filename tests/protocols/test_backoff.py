from protocols.backoff import doubled


def test_it_doubles_up_to_a_limit_and_for_ever() -> None:
    assert [doubled(0.5, times, 3.0) for times in (0, 1, 2, 3, 10_000)] == [0.5, 1.0, 2.0, 3.0, 3.0]
    assert doubled(0.0, 10_000, 3.0) == 0.0
