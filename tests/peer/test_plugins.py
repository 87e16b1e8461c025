"""Entry points of really installed packages, made on the spot."""

from importlib.metadata import EntryPoints, entry_points

import pytest

from peer.models.registry import Architecture, build_module
from peer.plugins import PluginError, Plugins
from protocols.manifest import Model

PLUGIN = """
from torch import nn
from peer.models.initialisation import kaiming_uniform
from peer.models.registry import Architecture
from peer.plugins import PluginOptions

class Options(PluginOptions):
    size: int = 3

TINY = Architecture(Options, lambda options: nn.Linear(options.size, 1), kaiming_uniform)
NOT_ONE = 5
"""


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """A package with models, as pip leaves it in site-packages."""
    (tmp_path / "tiny_models.py").write_text(PLUGIN)
    metadata = tmp_path / "tiny_models-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: tiny-models\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text(
        "[peer.models]\n"
        "tiny = tiny_models:TINY\n"
        "mlp = tiny_models:TINY\n"
        "wrong = tiny_models:NOT_ONE\n"
        "missing = tiny_models:NOTHING\n"
    )
    monkeypatch.syspath_prepend(tmp_path)


@pytest.mark.usefixtures("installed")
def test_an_installed_package_adds_a_model():
    assert build_module(Model(architecture="tiny", options={"size": 4})).weight.shape == (1, 4)


@pytest.mark.usefixtures("installed")
def test_an_installed_package_cannot_replace_a_built_in():
    assert type(build_module(Model(architecture="mlp"))).__name__ == "Mlp"


@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("wrong", f"not a {Architecture.__name__}"),
        ("missing", "cannot be loaded"),
        ("huge", "model.architecture: there is no model 'huge' here: it is not one of cnn, gpt, .*tiny"),
    ],
)
def test_what_is_no_model_is_named_in_the_error(name, message):
    with pytest.raises(PluginError, match=message):
        build_module(Model(architecture=name))


@pytest.mark.usefixtures("installed")
def test_installed_packages_are_looked_through_once(monkeypatch):
    looks: list[str] = []

    def look(group: str) -> EntryPoints:
        looks.append(group)
        return entry_points(group=group)

    monkeypatch.setattr("peer.plugins.entry_points", look)
    models = Plugins("model", "model.architecture", "peer.models", Architecture, {})
    assert models.find("tiny") is models.find("tiny")
    assert looks == ["peer.models"]
