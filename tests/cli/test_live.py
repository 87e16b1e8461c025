import json

import pytest
from rich.console import Console
from structlog.testing import capture_logs

from cli.live import show_while_training
from cli.render import live_view, status_view
from peer.demo import demo_manifest
from peer.settings import JoinSettings
from tests.peer.scripted_daemon import make_pipeline_status, make_status

RUN = demo_manifest().run_id


def follow(statuses, **settings):
    """Shows the statuses as `peer join` would, and gives the log lines."""
    with capture_logs() as lines, show_while_training(JoinSettings(run_id=RUN, **settings)) as observe:
        for status in statuses:
            observe(status)
    return lines


def test_a_run_trained_to_its_end_is_summed_up_in_a_line(capsys, home):
    follow([make_status(RUN, 1, others=3), make_status(RUN, 10, others=1)], until_done=True)
    line = capsys.readouterr().out
    assert line.startswith(f"{RUN} is trained: accuracy 96.4 % after 10 epochs in 0 s, with 4 members at most; ")
    assert str(home.snapshots_path(RUN)) in line
    assert line.count("\n") == 1


def test_a_run_trained_alone_says_so(capsys):
    follow([make_status(RUN, 10, others=0)], until_done=True)
    assert "in 0 s, alone; the model lies in" in capsys.readouterr().out


def test_who_trains_nothing_tells_no_evaluation(capsys):
    follow([make_status(RUN, 10, role="aggregator")], role="aggregator", until_done=True)
    line = capsys.readouterr().out
    assert line.startswith(f"{RUN} is trained: 10 epochs in 0 s, with 2 members at most; the model lies in ")


def test_a_monitor_has_no_model_to_show(capsys):
    follow([make_status(RUN, 10, role="monitor")], role="monitor", until_done=True)
    assert capsys.readouterr().out == f"{RUN} is trained: 10 epochs in 0 s, with 2 members at most\n"


def test_a_peer_of_a_pipeline_has_a_stage_of_the_model(capsys, home):
    follow([make_pipeline_status(RUN, 10)], until_done=True)
    assert f"; a stage of the model lies in {home.snapshots_path(RUN)}\n" in capsys.readouterr().out


def test_the_summary_for_machines_is_json(capsys):
    follow([make_status(RUN, 10, others=3)], until_done=True, log_format="json")
    summary = json.loads(capsys.readouterr().out)
    assert (summary["run"], summary["epochs"], summary["members_at_most"]) == (RUN, 10, 4)
    assert summary["evaluation"] == {"accuracy": 0.964}


def test_a_run_left_before_its_end_is_not_called_trained(capsys):
    follow([make_status(RUN, 9)], until_done=True)
    assert capsys.readouterr().out == ""


def test_progress_is_logged_when_there_is_news():
    lines = follow([make_status(RUN, 1), make_status(RUN, 2), make_status(RUN, 3, others=2)])
    assert [(line["epoch"], line["members"], line["accuracy"]) for line in lines] == [(1, 2, 0.964), (3, 3, 0.964)]


@pytest.mark.parametrize("width", [40, 80, 200])
@pytest.mark.parametrize("view", [live_view, status_view])
@pytest.mark.parametrize("status", [make_status(RUN), make_pipeline_status(RUN, moving_to=1)])
def test_views_fit_the_terminal(view, width, status):
    console = Console(width=width, record=True, markup=False)
    console.print(view(status))
    assert all(len(line) <= width for line in console.export_text().splitlines())
