"""`peer run ban`, `pause`, `resume`, `set` and `directives`, through a daemon whose answers the test decides."""

import json
import tomllib

import pytest

from peer.demo import demo_manifest
from peer.directive_store import load_directives, save_directives
from protocols.directives import MAX_DIRECTIVES, Directive, DirectiveLog, Pause, Set
from protocols.identity import Identity
from protocols.signed import Signer
from tests.peer.scripted_daemon import make_status, running_daemon

MEMBER = Identity.from_seed(b"m" * 32).peer_id
EPOCH = 3
"""Of the scripted daemon; it plays two epochs a second."""
AHEAD = EPOCH + 30


@pytest.fixture
def run_id(peer):
    return peer("run", "create", "demo").stdout.split()[0]


@pytest.fixture
def daemon(home, run_id):
    with running_daemon(home, run_id) as thread:
        thread.daemon_view.known = DirectiveLog(home.manifest(run_id))
        yield thread


@pytest.fixture
def known(daemon):
    """What the daemon knows."""
    return daemon.daemon_view.known


def test_a_ban_is_signed_and_handed_over(peer, refuses, known, home, run_id):
    outcome = peer("run", "ban", run_id, MEMBER, "--why", "sends noise")
    assert outcome.stdout == f"directive 1: ban {MEMBER}: sends noise (the run is at epoch {EPOCH})\n"
    assert known.bans == {MEMBER: "sends noise"}
    assert known.holding[0].sender == home.identity().peer_id
    assert refuses(2, "run", "ban", run_id, MEMBER) == f"peer: {MEMBER} is banned already: sends noise\n"


def test_pause_and_resume_follow_each_other(peer, refuses, known, run_id):
    assert refuses(2, "run", "resume", run_id) == f"peer: {run_id} is not paused\n"
    assert peer("run", "pause", run_id).stdout.startswith(f"directive 1: pause from epoch {AHEAD} on (")
    assert "is paused already; go on with: peer run resume" in refuses(2, "run", "pause", run_id)
    assert peer("run", "resume", run_id).stdout.startswith("directive 2: resume (")
    assert peer("run", "pause", run_id, "--at-epoch", "50").exit_code == 0
    assert [known.paused(epoch) for epoch in (49, 50)] == [False, True]


def test_set_changes_fields_from_an_epoch_that_comes(peer, known, run_id):
    outcome = peer("run", "set", run_id, "learning_rate=0.05", "weight_decay=1e-3")
    assert "set learning_rate = 0.05, weight_decay = 0.001 from epoch" in outcome.stdout
    assert known.training(AHEAD - 1) == known._manifest.training
    assert known.training(AHEAD).outer.learning_rate == 0.05
    assert peer("run", "set", run_id, "target_batch=64", "--at-epoch", "40").exit_code == 0
    assert known.training(40).target_batch == 64


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["batch_size=7"], "batch_size cannot change while a run lives; what can: learning_rate, "),
        (["learning_rate"], "'learning_rate' is no change; write FIELD=VALUE"),
        (["learning_rate=fast"], "learning_rate=fast: 'fast' is no number"),
        (["learning_rate=nan"], "learning_rate: must be a finite number, not nan"),
        (["learning_rate=-1"], "learning_rate: must be greater than 0, not -1.0"),
        (["target_batch=1.5"], "target_batch=1.5: '1.5' is no whole number"),
        (["target_batch=1000000"], "target_batch: at most the manifest's "),
        (["learning_rate=1", "learning_rate=2"], "learning_rate is given twice"),
        (["learning_rate=1", "--at-epoch", "3"], "--at-epoch: the run is at epoch 3 already"),
        (["learning_rate=1", "--at-epoch", "100000"], "the run ends at epoch "),
    ],
)
def test_a_change_that_cannot_be_is_explained(refuses, known, run_id, words, sentence):
    assert sentence in refuses(2, "run", "set", run_id, *words)
    assert len(known) == 0


def test_a_ban_that_cannot_be_is_explained(refuses, known, home, run_id):
    assert "nobody" in refuses(2, "run", "ban", run_id, "nobody")
    assert "--why: " in refuses(2, "run", "ban", run_id, MEMBER, "--why", "x" * 200)
    assert "--why: has characters" in refuses(2, "run", "ban", run_id, MEMBER, "--why", "two\nlines")
    me = home.identity().peer_id
    assert "organiser cannot be banned" in refuses(2, "run", "ban", run_id, me)
    assert len(known) == 0


def test_a_run_that_is_over_is_left_alone(refuses, daemon, run_id, home):
    last = home.manifest(run_id).epochs
    daemon.call(type(daemon.daemon_view).become, make_status(run_id, epoch=last))
    sentence = f"has reached its last epoch, {last}"
    assert sentence in refuses(2, "run", "set", run_id, "learning_rate=1")
    assert sentence in refuses(2, "run", "pause", run_id)


def test_a_run_has_so_many_directives_and_no_more(refuses, known, home, run_id):
    last = Signer(home.identity(), run_id, 1).sign(Directive(number=MAX_DIRECTIVES, order=Pause()), 0)
    known.take(last.wire)
    assert f"has had {MAX_DIRECTIVES} directives" in refuses(2, "run", "ban", run_id, MEMBER)


def test_only_the_organiser_directs(peer, refuses, home, run_id, tmp_path):
    other = tmp_path / "other"
    assert "only its organiser directs it" in refuses(2, "run", "pause", run_id, "--home", str(other))
    from peer.home import Home

    Home(other).store_manifest(home.manifest(run_id))
    sentence = refuses(2, "run", "pause", run_id, "--home", str(other))
    assert sentence.startswith(f"peer: only {home.identity().peer_id}, the organiser of {run_id}, directs it; you are ")
    assert "has no organiser" in refuses(2, "run", "pause", demo_manifest().run_id)
    assert "neither a run id nor a run known" in refuses(2, "run", "pause", "nothing")


def test_the_way_on_from_a_pause_names_the_home(peer, refuses, known, home, run_id, monkeypatch, tmp_path):
    peer("run", "pause", run_id)
    monkeypatch.setenv("PEER_HOME", str(tmp_path / "another"))
    sentence = refuses(2, "run", "pause", run_id, "--home", str(home.path))
    assert sentence.endswith(f"go on with: peer run resume {run_id} --home {home.path}\n")


def test_without_a_daemon_it_says_what_to_do(refuses, run_id):
    sentence = refuses(3, "run", "pause", run_id)
    assert f"start one with: peer join --run-id {run_id} (or name a member by --initial-peers)" in sentence


def test_directives_are_listed(peer, known, home, run_id):
    peer("run", "set", run_id, "learning_rate=0.05")
    peer("run", "ban", run_id, MEMBER, "--why", "[red]noise")
    contradiction = Signer(home.identity(), run_id, 1).sign(Directive(number=1, order=Set(learning_rate=0.5)), 40)
    known.take(contradiction.wire)
    lines = peer("run", "directives", run_id).stdout.splitlines()[1:]
    assert len(lines) == 3
    assert sum("does not hold" in line for line in lines) == 1
    assert f"ban {MEMBER}: [red]noise" in lines[2]
    listed = json.loads(peer("run", "directives", run_id, "--json").stdout)
    assert [one["number"] for one in listed["directives"]] == [1, 1, 2]
    shown = tomllib.loads(peer("run", "show", run_id).stdout)["directives"]
    assert [one["action"] for one in shown] == ["set", "ban"]
    assert shown[1]["peer"] == MEMBER


def test_without_a_daemon_those_are_listed_that_were_known_last(peer, home, run_id):
    assert peer("run", "directives", run_id).exit_code == 0
    wire = Signer(home.identity(), run_id, 1).sign(Directive(number=1, order=Pause()), 9).wire
    path = home.directives_path(run_id)
    save_directives(path, [wire, b"noise"])
    assert load_directives(path) == (wire, b"noise")
    assert "pause from epoch 9 on" in peer("run", "directives", run_id).stdout
    path.write_bytes(b"\xc1 damaged")
    assert load_directives(path) == ()
    assert json.loads(peer("run", "show", run_id, "--json").stdout)["directives"] == []
