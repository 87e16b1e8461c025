import json
import tomllib
from pathlib import Path

import numpy as np
import pytest

from cli.render import as_toml
from peer.demo import demo_manifest
from peer.recipes import built_in_recipe

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture
def text(tmp_path):
    path = tmp_path / "story.txt"
    path.write_text("Once upon a time there was a swarm. " * 200)
    return path


@pytest.mark.parametrize("example", sorted(path.name for path in EXAMPLES.glob("*.toml")))
def test_every_example_makes_a_run(peer, tmp_path, text, example):
    recipe = tmp_path / example
    recipe.write_text((EXAMPLES / example).read_text())
    np.savez(tmp_path / "digits.npz", inputs=np.ones((20, 64)), targets=np.arange(20) % 10)
    outcome = peer("run", "create", str(recipe))
    assert outcome.exit_code == 0
    run_id = outcome.stdout.splitlines()[0]
    assert run_id.startswith(f"{recipe.stem}-")
    assert f"peer join --run-id {run_id}\n" in outcome.stdout


def test_a_built_in_recipe_makes_a_run_of_ones_own(peer, home, text):
    outcome = peer("run", "create", "text", "--data", str(text))
    run_id = outcome.stdout.splitlines()[0]
    assert "Members fetch the files" in outcome.stdout
    assert home.manifest(run_id).organiser == home.identity().peer_id
    assert home.manifest(run_id).data.shards[0].name == "story.txt"
    assert peer("run", "create", "demo").stdout.splitlines()[0] != demo_manifest().run_id


def test_the_organiser_joins_in_the_home_that_has_the_run(peer, tmp_path):
    outcome = peer("run", "create", "demo", "--home", str(tmp_path / "other"))
    run_id = outcome.stdout.splitlines()[0]
    assert f"first member here with: peer join --run-id {run_id} --home {tmp_path}/other\n" in outcome.stdout


def test_where_joining_finds_data_is_no_data_of_a_new_run(peer, home, text):
    home.path.mkdir()
    (home.path / "config.toml").write_text(f'data = ["{text.parent}"]')
    run_id = peer("run", "create", "text", "--data", str(text)).stdout.splitlines()[0]
    assert [shard.name for shard in home.manifest(run_id).data.shards] == ["story.txt"]


def test_show_prints_the_manifest_as_toml(peer):
    fields = tomllib.loads(peer("run", "show", "demo").stdout)
    assert fields["run_id"] == demo_manifest().run_id
    assert fields["training"]["target_batch"] == demo_manifest().training.target_batch
    assert fields["model"]["options"] == demo_manifest().model.options


@pytest.mark.parametrize(
    ("tables", "checked"),
    [
        ("", "nobody's work"),
        ("[verification]\nvalidators = 1\n", "owners' and senders' work"),
        ("[verification]\nvalidators = 1\n[data]\nprivate = true\n", "owners' work; senders' data are their own"),
    ],
)
def test_show_says_whose_work_is_checked(peer, tmp_path, tables, checked):
    demo = built_in_recipe("demo").fields
    recipe = tmp_path / "checked.toml"
    merged = demo | {"name": "checked"}
    for table, fields in tomllib.loads(tables).items():
        merged[table] = merged.get(table, {}) | fields
    recipe.write_text(as_toml(merged))
    run_id = peer("run", "create", str(recipe)).stdout.split()[0]
    assert tomllib.loads(peer("run", "show", run_id).stdout)["checked"] == checked


@pytest.mark.parametrize("days", ["0", "inf", "1e300"])
def test_a_token_is_for_a_number_of_days_that_it_can_say(peer, refuses, home, tmp_path, days):
    recipe = tmp_path / "admitted.toml"
    recipe.write_text(as_toml(built_in_recipe("demo").fields | {"name": "admitted", "admission": {"policy": "token"}}))
    run_id = peer("run", "create", str(recipe)).stdout.split()[0]
    admit = ("run", "admit", run_id, home.identity().peer_id)
    assert "--days: must be more than 0 and at most 10000000, not" in refuses(2, *admit, "--days", days)
    assert peer(*admit, "--days", "10000000").exit_code == 0


def test_show_json_is_the_manifest(peer, home, text):
    run_id = peer("run", "create", "text", "--data", str(text)).stdout.splitlines()[0]
    fields = json.loads(peer("run", "show", "text", "--json").stdout)
    assert fields["run_id"] == run_id
    assert fields["organiser"] == home.identity().peer_id
    assert tomllib.loads(peer("run", "show", run_id[:9]).stdout)["data"] == fields["data"]


def test_show_of_a_run_that_only_the_swarm_knows_says_so(refuses):
    assert "join the run to get it from the swarm" in refuses(2, "run", "show", "other-" + "a" * 26)


def test_list_has_the_demo_and_the_runs_of_the_home(peer, home, text):
    assert [line.split()[0] for line in peer("run", "list").stdout.splitlines()[1:]] == [demo_manifest().run_id]
    run_id = peer("run", "create", "text", "--data", str(text)).stdout.splitlines()[0]
    home.run_directory("joined-" + "a" * 26)
    lines = peer("run", "list").stdout.splitlines()[1:]
    assert [line.split()[0] for line in lines] == [demo_manifest().run_id, "joined-" + "a" * 26, run_id]
    assert lines[2].split()[1:] == ["200", "text", "gpt"]
    assert "manifest not known yet" in lines[1]
    _, joined, created = json.loads(peer("run", "list", "--json").stdout)
    assert joined == {"run_id": "joined-" + "a" * 26, "epochs": None, "dataset": None, "architecture": None}
    assert created == {"run_id": run_id, "epochs": 200, "dataset": "text", "architecture": "gpt"}


def test_a_home_of_one_run_is_told_to_join_that(refuses, peer, text):
    assert "peer join --run-id demo" in refuses(3, "status")
    run_id = peer("run", "create", "text", "--data", str(text)).stdout.splitlines()[0]
    assert f"peer join --run-id {run_id}" in refuses(3, "status")
    assert f"peer join --detach --run-id {run_id}" in refuses(3, "logs")


def test_a_damaged_manifest_does_not_hide_the_other_runs(peer, home, text):
    run_id = peer("run", "create", "text", "--data", str(text)).stdout.splitlines()[0]
    damaged = home.run_directory("damaged-" + "a" * 26) / "manifest.msgpack"
    damaged.write_bytes(b"noise")
    outcome = peer("run", "list")
    assert [line.split()[0] for line in outcome.stdout.splitlines()[1:]] == [demo_manifest().run_id, run_id]
    assert outcome.exit_code == 1
    assert outcome.stderr.startswith(f"peer: {damaged} is damaged")
    assert "remove it to fetch it again" in outcome.stderr


def test_a_faulty_recipe_is_named_with_its_field(refuses, tmp_path):
    recipe = tmp_path / "recipe.toml"
    recipe.write_text((EXAMPLES / "digits.toml").read_text().replace("target_batch = 512", "target_batch = 0"))
    sentence = refuses(2, "run", "create", str(recipe))
    assert sentence == f"peer: {recipe}: training.target_batch: must be greater than or equal to 1, not 0\n"
