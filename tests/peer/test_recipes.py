from contextlib import suppress
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from peer.demo import demo_manifest
from peer.errors import UsageError
from peer.home import Home
from peer.organise import create_run
from peer.recipes import BUILT_IN, built_in_recipe, data_files, read_recipe, to_manifest
from peer.shards import locate_shards

RECIPE = """
name = "small"
epochs = 3

[model]
architecture = "mlp"
options = { inputs = 64, width = 16 }

[data]
dataset = "digits"

[training]
mode = "data_parallel"
target_batch = 64
optimizer = { algorithm = "sgd", learning_rate = 0.1 }
"""

TEXT = RECIPE.replace('"mlp"', '"gpt"').replace("inputs = 64, width = 16", "width = 8, heads = 2")
TEXT = TEXT.replace('dataset = "digits"', 'dataset = "text"\nfiles = ["*.txt"]')


@pytest.fixture
def home(tmp_path):
    return Home(tmp_path / "home")


@pytest.fixture
def write(tmp_path):
    def write_recipe(text):
        path = tmp_path / "recipe.toml"
        path.write_text(text)
        return str(path)

    return write_recipe


def test_a_recipe_becomes_the_manifest_of_the_organiser(home, write):
    manifest = create_run(home, read_recipe(write(RECIPE)))
    assert manifest.organiser == home.identity().peer_id
    assert (manifest.name, manifest.epochs, manifest.training.target_batch) == ("small", 3, 64)
    assert home.manifest(manifest.run_id) == manifest
    assert create_run(home, read_recipe(write(RECIPE))).run_id == manifest.run_id


@pytest.mark.parametrize(
    ("averaging", "rule", "byzantine"),
    [
        ("quorum = 3", "mean", 0),
        ("quorum = 4", "nnm | geometric_median", 1),
        ("quorum = 16", "nnm | geometric_median", 5),
        ('quorum = 16\nrule = "mean"', "mean", 0),
        ('quorum = 16\nrule = "krum"', "krum", 5),
        ('quorum = 16\nrule = "krum"\nbyzantine = 0', "krum", 0),
        ('rule = "median"\nbyzantine = 0', "median", 0),
    ],
)
def test_four_or_more_get_a_robust_rule_unless_the_recipe_says_otherwise(home, write, averaging, rule, byzantine):
    manifest = create_run(home, read_recipe(write(f"{RECIPE}\n[averaging]\n{averaging}")))
    assert (manifest.averaging.rule, manifest.averaging.byzantine) == (rule, byzantine)


def test_a_robust_rule_that_would_withstand_nobody_is_asked_about(home, write):
    with pytest.raises(UsageError, match=r"averaging\.rule: krum is to withstand how many members\?"):
        create_run(home, read_recipe(write(f'{RECIPE}\n[averaging]\nrule = "krum"\nquorum = 3')))


def test_every_built_in_recipe_is_one():
    for name in BUILT_IN:
        assert to_manifest(built_in_recipe(name)).name == name
    assert to_manifest(built_in_recipe("demo")) == demo_manifest()
    assert demo_manifest().organiser is None


def test_text_is_named_by_content_and_found_again(home, write, tmp_path):
    for name, text in [("a.txt", "a" * 2000), ("b.txt", "b" * 3000)]:
        (tmp_path / name).write_text(text)
    (tmp_path / "other").mkdir()
    more = tmp_path / "other" / "a.txt"
    more.write_text("c" * 2000)  # as long as its namesake
    manifest = create_run(home, read_recipe(write(TEXT)), [more])
    assert [(shard.name, shard.size_bytes) for shard in manifest.data.shards] == [
        ("a.txt", 2000), ("b.txt", 3000), ("a.txt", 2000),
    ]  # fmt: skip
    files = [tmp_path / "a.txt", tmp_path / "b.txt", more]
    assert [file.path for file in locate_shards(manifest.data.shards, [], home.run_directory(manifest.run_id))] == files
    volunteer = Home(tmp_path / "volunteer").run_directory(manifest.run_id)
    assert [file.path for file in locate_shards(manifest.data.shards, [tmp_path], volunteer)] == files


def test_text_that_is_not_here_is_named(home, write, tmp_path):
    (tmp_path / "a.txt").write_text("a" * 2000)
    manifest = create_run(home, read_recipe(write(TEXT)))
    volunteer = Home(tmp_path / "volunteer").run_directory(manifest.run_id)
    with pytest.raises(UsageError, match=r"--data .*nowhere: there is no such file or directory"):
        locate_shards(manifest.data.shards, [tmp_path / "nowhere"], volunteer)
    assert locate_shards(manifest.data.shards, [], volunteer) == [None]


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        (("epochs = 3", "epochs = 0"), "epochs: must be greater than or equal to 1, not 0"),
        (("epochs = 3", "epochs = " + "3" * 5000), "is not TOML: it has a number of thousands of digits"),
        (("epochs = 3", "epochs = " + "[" * 10_000), "is not TOML: it is nested too deeply"),
        (("epochs = 3", "epoch = 3"), "epoch: unknown; did you mean 'epochs'?"),
        (("epochs = 3", 'epochs = "3"'), "epochs: must be a whole number, not '3'"),
        (("epochs = 3", ""), "epochs: missing"),
        (("epochs = 3", "epochs = 3\nversion = 1"), "version: `peer run create` writes it; remove it"),
        (('name = "small"', 'name = "Small Run"'), "name: must match pattern"),
        (
            ("target_batch = 64", "target_batch = -1"),
            "training.target_batch: must be greater than or equal to 1",
        ),
        (("target_batch", "target_bach"), "training.target_bach: unknown; did you mean 'target_batch'?"),
        (('"data_parallel"', '"data_paralel"'), "training.mode: must be one of 'data_parallel', 'local_sgd'"),
        (("mode =", "# mode ="), "training.mode: missing"),
        (('"sgd"', '"sdg"'), "training.optimizer.algorithm: must be one of 'sgd', 'adamw', not 'sdg'"),
        (("learning_rate = 0.1", "learning_rate = nan"), "training.optimizer.learning_rate: must be"),
        (("learning_rate", "learning_rat"), "training.optimizer.learning_rat: unknown; did you mean 'learning_rate'?"),
        (('"digits"', '"digits"\nshards = []'), "data.shards: `peer run create` writes it"),
        (('"digits"', '"digits"\nfiles = "a.txt"'), "data.files: must be a list of file names, not 'a.txt'"),
        (('"digits"', '"digits"\nfiles = ["a.txt"]'), "data.files: 'a.txt' is not a file in"),
        (('"digits"', '"digits"\nfiles = ["*.txt"]'), "data.files: '*.txt' matches no file in"),
        (('"digits"', '"digit"'), "data.dataset: there is no data set 'digit' here; did you mean 'digits'?"),
        (('"mlp"', '"mpl"'), "model.architecture: there is no model 'mpl' here; did you mean 'mlp'?"),
        (('"mlp"', '"resnet"'), "model.architecture: there is no model 'resnet' here: it is not one of cnn, gpt"),
        (('"digits"', '"digits"\noptions = { a = 1 }'), "data.options.a: unknown; remove it, for there is nothing to"),
        (
            ("target_batch", "inner_steps"),
            "training.inner_steps: unknown; it may be batch_size, mode, optimizer or target_batch",
        ),
        (
            ('dataset = "digits"', 'dataset = "digits"\nx = 1'),
            "data.x: unknown; it may be dataset, directory, files, options or",
        ),
        (
            ("epochs = 3", "epochs = 3\nx = 1"),
            "x: unknown; it may be admission, averaging, data, epochs, evaluation, model, name",
        ),
        (("width = 16", "width = []"), "model.options.width: must be true, false, a number or a text, not []"),
        (("width = 16", "width = " + "9" * 30), "model.options.width: must be a whole number, not 1e+30"),
        (("width = 16", "widht = 16"), "model.options.widht: unknown; did you mean 'width'?"),
        (
            ("inputs = 64", "inputs = 63"),
            "model.options: the model does not fit the data, whose samples have",
        ),
        (
            ("width = 16", "classes = 5"),
            "the model does not fit the data, whose samples have the shape (1, 8, 8): it tells 5 classes apart, and",
        ),
        (
            ("[training]", "[averaging]\nquorum = 8\ngroup_limit = 4\n[training]"),
            "averaging: a group of 4 at most (group_limit) never has the 8 that have to be there (quorum)",
        ),
        (
            ("[training]", "[averaging]\nrule = 'meen'\n[training]"),
            "averaging.rule: there is no aggregation rule",
        ),
        (
            ("[training]", "[averaging]\ncodec = 'fp16'\n[training]"),
            "averaging.codec: must be 'none', 'float16' or",
        ),
        (("[data]", "[[data]]"), "data: must be a table, not [{"),
        (("[data]", "[data"), "is not TOML: Expected ']' at the end of a table declaration (at line 9, column 6)"),
    ],
)
def test_a_mistake_is_named_by_its_field(home, write, wrong, sentence):
    path = write(RECIPE.replace(*wrong, 1))
    with pytest.raises(UsageError) as raised:
        create_run(home, read_recipe(path))
    assert str(raised.value).startswith(path)
    assert sentence in str(raised.value)
    assert home.runs() == []


def test_a_rule_that_cannot_serve_so_few_neighbours_is_refused(home, write):
    gossip = 'protocol = "gossip"\ntopology = "regular"\ndegree = 4\nmixing = "rule"'
    averaging = '[averaging]\nrule = "bulyan"\nbyzantine = 1\nquorum = 7\n[training]'
    recipe = RECIPE.replace('mode = "data_parallel"', gossip).replace("[training]", averaging, 1)
    recipe = "".join(line for line in recipe.splitlines(keepends=True) if not line.startswith("target_batch"))
    with pytest.raises(UsageError, match=r"averaging\.rule: bulyan"):
        create_run(home, read_recipe(write(recipe)))
    assert home.runs() == []
    create_run(home, read_recipe(write(recipe.replace("degree = 4", "degree = 6"))))


PIPELINE = RECIPE.replace("width = 16 }\n", "width = 16, layers = 4 }\n").replace(
    'mode = "data_parallel"', 'mode = "swarm"\nstages = 2'
)


def test_a_recipe_may_cut_its_model_into_stages(home, write, tmp_path):
    assert create_run(home, read_recipe(write(PIPELINE))).training.stages == 2
    (tmp_path / "a.txt").write_text("a" * 2000)
    text = TEXT.replace('mode = "data_parallel"', 'mode = "swarm"\nstages = [1, 1]')
    assert create_run(home, read_recipe(write(text))).training.layers == (1, 1)


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        (("stages = 2", "stages = 5"), "training.stages: 4 layers (model.options.layers) are too few for 5"),
        (("stages = 2", "stages = [1, 2]"), "training.stages: 1 + 2 are 3 layers, and the model has 4"),
        (("inputs = 64", "inputs = 63"), "model.options: the model does not fit the data"),
        (
            ('"mlp"\noptions = { inputs = 64, width = 16, layers = 4 }', '"cnn"'),
            "model.architecture: 'cnn' cannot be cut",
        ),
    ],
)
def test_a_mistake_in_a_cut_is_named_by_its_field(home, write, wrong, sentence):
    assert wrong[0] in PIPELINE
    with pytest.raises(UsageError) as raised:
        create_run(home, read_recipe(write(PIPELINE.replace(*wrong, 1))))
    assert sentence in str(raised.value)
    assert home.runs() == []


def test_data_longer_than_the_context_of_a_model_in_stages_is_refused(home, write, tmp_path):
    (tmp_path / "a.txt").write_text("a" * 2000)
    text = TEXT.replace("heads = 2", "heads = 2, context = 32").replace(
        'mode = "data_parallel"', 'mode = "swarm"\nstages = 2'
    )
    with pytest.raises(UsageError, match=r"model does not fit the data.*\(64,\)"):
        create_run(home, read_recipe(write(text)))


def test_options_that_contradict_each_other_are_named_by_their_table(home, write, tmp_path):
    (tmp_path / "a.txt").write_text("a" * 2000)
    with pytest.raises(UsageError, match=r"model\.options: width 9 cannot be divided among 2 heads"):
        create_run(home, read_recipe(write(TEXT.replace("width = 8", "width = 9"))))


def test_a_model_that_cannot_tell_all_bytes_apart_does_not_fit_text(home, write, tmp_path):
    (tmp_path / "a.txt").write_text("a" * 2000)
    with pytest.raises(UsageError, match=r"it tells 100 classes apart, and the labels go to 255"):
        create_run(home, read_recipe(write(TEXT.replace("width = 8", "width = 8, vocabulary = 100"))))


def test_a_saved_data_set_in_nobodys_home_is_named(home, write):
    saved = 'dataset = "huggingface"\ndirectory = "~nobody-here/saved"\noptions = { inputs = "a", targets = "b" }'
    with pytest.raises(UsageError, match=r"data\.directory: ~nobody-here/saved is in the home of a user who is not"):
        create_run(home, read_recipe(write(RECIPE.replace('dataset = "digits"', saved))))


def test_text_without_files_says_where_to_name_them(home):
    with pytest.raises(UsageError, match="name the text to train on, there or with --data FILE"):
        create_run(home, read_recipe("text"))


def test_too_many_files_are_refused(tmp_path, write):
    for number in range(1025):
        (tmp_path / f"{number}.txt").touch()
    with pytest.raises(UsageError, match="1025 files, a run has 1024 at most"):
        data_files(read_recipe(write(TEXT)))


def test_a_recipe_that_is_not_there_or_not_text_is_explained(tmp_path):
    with pytest.raises(UsageError, match="there is no recipe texxt; give the path of one, or a built-in: demo, text"):
        read_recipe("texxt")
    with pytest.raises(UsageError, match="cannot be read: Is a directory"):
        read_recipe(str(tmp_path))
    (tmp_path / "binary").write_bytes(b"\xff\xfe")
    with pytest.raises(UsageError, match="is not a TOML file in UTF-8"):
        read_recipe(str(tmp_path / "binary"))


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("abcdefghij_", min_size=1), inner, max_size=3),
    max_leaves=6,
)
FIELDS = ["name", "epochs", "seed", "model", "data", "training", "averaging", "evaluation", "version", "organiser"]
TABLES = st.dictionaries(
    st.sampled_from(
        ["architecture", "options", "dataset", "files", "shards", "mode", "target_batch", "optimizer", "codec"]
    ),
    VALUES | st.sampled_from(["mlp", "data_parallel", "local_sgd", "int8"]),
)


@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=st.text() | st.text('[]{}="\n #.,abc012', max_size=60))
def test_any_text_is_a_recipe_or_is_refused_in_a_sentence(write, text):
    path = write(text.encode("utf-8", "replace").decode())
    with suppress(UsageError):
        to_manifest(read_recipe(path))


@settings(max_examples=500)
@given(fields=st.dictionaries(st.sampled_from(FIELDS) | st.text(max_size=4), VALUES | TABLES))
def test_any_fields_are_a_recipe_or_are_refused_in_a_sentence(fields):
    demo = built_in_recipe("demo")
    recipe = replace(demo, fields={**demo.fields, **fields})
    with suppress(UsageError):
        data_files(recipe)
        to_manifest(recipe)
