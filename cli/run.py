"""`peer run create`, `show`, `admit` and `list`: runs from recipes, and the runs known here."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.options import Home, Json

if TYPE_CHECKING:
    from peer.home import Home as HomeDirectory
    from protocols.manifest import Manifest

app = typer.Typer(help="Make a run from a recipe, and look at those known here.", rich_markup_mode=None)


@app.command()
def create(
    context: typer.Context,
    recipe: Annotated[str, typer.Argument(help="A TOML file, or a built-in recipe: demo, text.")],
    data: Annotated[list[str] | None, typer.Option(metavar="FILE", help="A file to train on; repeatable.")] = None,
    home: Home = None,
) -> None:
    """Make a run from a recipe, and print its id and the line to share."""
    from peer.hints import command
    from peer.home import Home as HomeDirectory
    from peer.recipes import read_recipe
    from peer.settings import Settings

    settings = Settings.load(home=home)
    read = read_recipe(recipe)
    from peer.organise import create_run  # loads torch: after the recipe could be refused

    manifest = create_run(HomeDirectory(settings.home), read, [_file(text) for text in data or []])
    typer.echo(f"{manifest.run_id}\n\nShare this line:\n\n    peer join --run-id {manifest.run_id}\n")
    join = command(settings.home, "join", "--run-id", manifest.run_id)
    typer.echo(f"You are its first member here with: {join}")
    if manifest.data.shards:
        typer.echo("Members fetch the files from you and from each other, so keep your daemon up at first.")
    typer.echo("From other machines, members add --initial-peers with an address of yours (peer status shows them).")


def _file(text: str) -> Path:
    from peer.errors import UsageError
    from peer.user_paths import user_path

    try:
        return user_path(text).absolute()
    except ValueError as error:
        raise UsageError(f"--data: {error}") from error


@app.command()
def show(
    context: typer.Context,
    run_id: Annotated[str, typer.Argument(metavar="ID", help="The run: its id, or a name or beginning of one.")],
    home: Home = None,
    json_output: Json = None,
) -> None:
    """Show what the members of a run have agreed on, and what its organiser has directed since."""
    from peer.errors import UsageError
    from peer.home import Home as HomeDirectory
    from peer.settings import ObserveSettings

    settings = ObserveSettings.load(home=home, json_output=json_output)
    directory = HomeDirectory(settings.home)
    run = directory.resolve_run(run_id)
    manifest = directory.manifest(run)
    if manifest is None:
        raise UsageError(f"the manifest of {run} is not in {directory.path}; join the run to get it from the swarm")
    fields: dict[str, Any] = {
        "run_id": run,
        **manifest.model_dump(mode="python"),
        "checked": _checked(manifest),
        "directives": _holding(directory, run),
    }
    if settings.json_output:
        typer.echo(json.dumps(fields, default=bytes.hex))
    else:
        from cli.render import as_toml

        typer.echo(as_toml(fields))


def _checked(manifest: "Manifest") -> str:
    """Whose work members do once more, to see that it is right."""
    if not manifest.verification.validators:
        return "nobody's work"
    return "owners' and senders' work" if manifest.checks_senders else "owners' work; senders' data are their own"


@app.command()
def admit(
    context: typer.Context,
    run_id: Annotated[str, typer.Argument(metavar="ID", help="The run: its id, or a name or beginning of one.")],
    peer_id: Annotated[str, typer.Argument(metavar="PEER", help="Who is admitted: its PeerID (`peer id`).")],
    days: Annotated[
        float | None, typer.Option(metavar="N", min=0.0, help="For so long; else until the run's end.")
    ] = None,
    home: Home = None,
) -> None:
    """Print the token by which you, a run's organiser, admit a peer."""
    from peer.admit import token_for
    from peer.home import Home as HomeDirectory
    from peer.settings import Settings

    directory = HomeDirectory(Settings.load(home=home).home)
    typer.echo(token_for(directory, directory.resolve_run(run_id), peer_id, days))


def _holding(home: "HomeDirectory", run: str) -> list[dict[str, Any]]:
    """The directives that hold, as the daemon here knows them, or knew them last."""
    from peer.direct import status_here

    holding = [one for one in status_here(home, run).directives if one.holds]
    shown = [one.model_dump(exclude={"holds"}, exclude_none=True) for one in holding]
    return [{name: value for name, value in one.items() if value != {}} for one in shown]


@app.command("list")
def list_runs(context: typer.Context, home: Home = None, json_output: Json = None) -> None:
    """List the runs known here."""
    from peer.demo import demo_manifest
    from peer.errors import PeerError
    from peer.home import Home as HomeDirectory
    from peer.settings import Settings

    directory = HomeDirectory(Settings.load(home=home).home)
    demo = demo_manifest()
    manifests: dict[str, Manifest | None] = {demo.run_id: demo}
    damaged = []
    for run in directory.runs():
        try:
            manifests[run] = directory.manifest(run)
        except PeerError as error:
            damaged.append(str(error))
    if json_output:
        runs = [{"run_id": run, **_summary(manifest)} for run, manifest in manifests.items()]
        typer.echo(json.dumps(runs))
    else:
        from cli.render import console, runs_view

        console().print(runs_view(manifests))
    if damaged:
        raise PeerError("; ".join(damaged))


def _summary(manifest: "Manifest | None") -> dict[str, Any]:
    """Nulls where it has not come yet."""
    if manifest is None:
        return {"epochs": None, "dataset": None, "architecture": None}
    return {
        "epochs": manifest.epochs,
        "dataset": manifest.data.dataset,
        "architecture": manifest.model.architecture,
    }
