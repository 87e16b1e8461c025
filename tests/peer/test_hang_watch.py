"""An event loop that hangs for good is told of and ended; a process that did not run is not taken for one."""

import os
import signal
import subprocess
import sys

import pytest

from peer.hang_watch import EXIT_CODE, Patience, Pulse, Verdict

PATIENCE = Patience(report_seconds=5, end_seconds=120)
END_SECONDS = 30.0
PROCESS = """
import asyncio, sys, time
from peer.hang_watch import Patience, hang_watch
from peer import logs

def stuck(seconds):
    time.sleep(seconds)

async def main():
    with hang_watch(Patience(report_seconds=0.5, end_seconds=1.5)):
        print("up", flush=True)
        line = await asyncio.to_thread(sys.stdin.readline)
        if line == "hang\\n":
            stuck(60)
        await asyncio.sleep(0.3)

logs.configure("text")
asyncio.run(main())
"""


@pytest.fixture
def process():
    with subprocess.Popen(
        [sys.executable, "-c", PROCESS],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            assert process.stdout.readline() == "up\n"
            yield process
        finally:
            process.kill()


def test_a_loop_that_hangs_for_good_is_reported_with_its_stack_and_ended(process):
    _, told = process.communicate("hang\n", timeout=END_SECONDS)
    assert process.returncode == EXIT_CODE
    assert told.count("the event loop hangs; unless it goes on") == 1
    assert "in stuck" in told
    assert "hangs for good" in told


def test_a_process_that_was_stopped_is_not_taken_for_one_that_hangs(process):
    os.kill(process.pid, signal.SIGSTOP)
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(2.5)
    os.kill(process.pid, signal.SIGCONT)
    _, told = process.communicate("go on\n", timeout=END_SECONDS)
    assert (process.returncode, told) == (0, "")


def looked(beats, times):
    """What a pulse says of a counter of beats (time → beats) at each of these times."""
    pulse = Pulse(PATIENCE, times[0])
    return [pulse.look(beats(now), now) for now in times]


def test_a_hang_is_reported_once_and_ended_at_last():
    verdicts = looked(lambda _now: 1, range(122))
    assert [now for now, verdict in enumerate(verdicts) if verdict is Verdict.REPORT] == [5]
    assert [now for now, verdict in enumerate(verdicts) if verdict is Verdict.END] == [120, 121]


def test_a_loop_that_is_late_again_and_again_is_reported_each_time_and_lives():
    verdicts = looked(lambda now: now // 8, range(240))
    assert verdicts.count(Verdict.REPORT) == 240 // 8
    assert Verdict.END not in verdicts


def test_time_in_which_nobody_looked_is_no_part_of_a_hang():
    slept = [0, 1, 2, 3600, 3601, 3602]
    assert set(looked(lambda _now: 1, slept)) == {Verdict.WELL}
    assert looked(lambda _now: 1, [*slept, 3603])[-1] is Verdict.REPORT
