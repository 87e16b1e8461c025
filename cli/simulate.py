"""`peer simulate`: a swarm in one process, under virtual time."""

import json
from contextlib import nullcontext
from typing import TYPE_CHECKING, Annotated

import typer

from cli.options import Json

if TYPE_CHECKING:
    from peer.simulation.report import GossipReport, Report


def simulate(
    scenario: Annotated[str, typer.Argument(metavar="SCENARIO", help="A TOML file; examples/simulations has some.")],
    *,
    seed: Annotated[
        int | None, typer.Option(metavar="N", min=0, help="Of all that is drawn; the scenario's, or 0.")
    ] = None,
    peers: Annotated[
        int | None, typer.Option(metavar="N", min=1, max=100_000, help="Instead of as many as the scenario has.")
    ] = None,
    trace: Annotated[
        str | None, typer.Option(metavar="FILE", help="Write what happens, when and to whom, as JSON lines.")
    ] = None,
    json_output: Json = None,
) -> int:
    """Play a scenario with the daemon's own code, and check what must always hold. Exit 1 if something does not."""
    from peer.logs import only_errors
    from peer.simulation.run import simulate as play
    from peer.simulation.scenario import read_scenario
    from peer.simulation.trace import Trace

    only_errors()
    read = read_scenario(scenario)
    with open(trace, "w", encoding="utf-8") if trace else nullcontext() as file:
        report = play(read, read.world.seed if seed is None else seed, peers, Trace(file))
    if json_output:
        typer.echo(json.dumps(report.to_dict()))
    else:
        typer.echo(_in_words(report))
    if report.violation is None:
        return 0
    from peer.errors import PeerError

    broken = report.violation
    who = "" if broken.peer is None else f"peer {broken.peer} "
    raise PeerError(f"at {broken.time:.3f} s {who}{broken.what}; the same again: {report.reproduce}")


def _in_words(report: "Report") -> str:
    rounds = max(1, report.epochs_of_all)
    learnt = ", ".join(f"{name} {value:.4g}" for name, value in report.evaluation.items())
    frames = sum(traffic.frames for traffic in report.traffic.values())
    size = sum(traffic.size_bytes for traffic in report.traffic.values())
    refused = ", ".join(f"{reason} {count}" for reason, count in report.refused.items()) or "nothing"
    gossip = [_gossip_in_words(report.gossip)] if report.gossip else []
    end = "all came to the end" if report.finished else "ended before the run did"
    return "\n".join(
        (
            f"{report.run_id}: {report.peers} peers, seed {report.seed}, {end}",
            f"  time       {report.seconds:.1f} virtual seconds in {report.processor_seconds:.1f} of a processor, "
            f"{report.memory_bytes / 1e6:.0f} MB",
            f"  run        epoch {report.epoch}; {learnt}; {report.samples} samples counted",
            *gossip,
            f"  members    {report.starts} starts, {report.crashes} crashes, {report.departures} departures, "
            f"{report.resyncs} resyncs, {report.banned} banned",
            f"  network    {frames} messages, {size / 1e6:.1f} MB: "
            f"{frames / rounds:.0f} and {size / rounds / 1e3:.1f} kB a peer and epoch",
            f"  refused    {refused}",
            f"  accepted   {report.accepted} statements, each seen to be signed",
            f"  trace      {report.trace}",
        )
    )


def _gossip_in_words(gossip: "GossipReport") -> str:
    return (
        f"  gossip     consensus distance {gossip.consensus_distance:.3g}, "
        f"{gossip.largest_consensus_distance:.3g} at most; "
        f"{gossip.exchanges // 2} exchanges, {gossip.failed_exchanges} failed, {gossip.busy} busy"
    )
