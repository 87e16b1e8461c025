"""How a status looks to a person: a compact text, a table of the members, a live view."""

import json
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from rich.console import Console, Group, RenderableType
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from cli.stages import members_of, microbatches_text, movers_of, share_text, stage_text
from peer.status import DirectivesStatus, DirectiveStatus, GossipStatus, PeerStatus, RunStatus, SelfStatus, Status
from protocols.printable import printable

if TYPE_CHECKING:
    from peer.doctor.findings import Report
    from protocols.manifest import Manifest


def console() -> Console:
    """stdout; wide enough for a whole PeerID where it is no terminal. What peers say is never read as markup."""
    return Console(markup=False, highlight=False, width=None if sys.stdout.isatty() else 200)


def status_view(status: Status) -> RenderableType:
    """`peer status`."""
    run, last = status.run, status.last_round
    rows = Table.grid(padding=(0, 2))
    rows.add_column(style="dim")
    rows.add_column(overflow="fold")
    rows.add_row("run", f"{run.id}  ({run.state})")
    if status.self_ is None:
        rows.add_row("epoch", f"{run.epoch} of {run.total_epochs}")
    else:
        _add_self(rows, run, status.self_)
    rows.add_row("members", _members(status))
    if last is not None:
        rows.add_row(
            "last round",
            f"epoch {last.epoch}, {_count(last.group_size, 'peer')}, {last.duration_seconds:.2f} s, "
            f"{_bytes(last.bytes_sent)} sent, {_bytes(last.bytes_received)} received, {last.rule} / {last.codec}"
            + _unless(not last.recovered_parts, f", {_count(last.recovered_parts, 'part')} recovered")
            + _unless(not last.missing_senders, f", {_count(last.missing_senders, 'sender')} missing"),
        )
    if status.gossip is not None:
        rows.add_row("gossip", _gossip(status.gossip))
    if status.pipeline is not None:
        rows.add_row("microbatches", microbatches_text(status.pipeline))
    if status.rejected:
        refused = ", ".join(f"{reason} {count:,}" for reason, count in sorted(status.rejected.items()))
        rows.add_row("refused", refused)
    return Group(rows, Text(), stages_view(status)) if status.stages else rows


def _add_self(rows: Table, run: RunStatus, me: SelfStatus) -> None:
    rows.add_row("epoch", f"{run.epoch} of {run.total_epochs}{_unless(me.epoch == run.epoch, f', here {me.epoch}')}")
    rows.add_row("model", f"{evaluation_text(run)}, loss {_number(run.loss)}, state {_short(me.state_digest)}")
    rows.add_row("self", f"{me.name}  {me.role}, {me.state}" + _unless(not stage_text(me), f", stage {stage_text(me)}"))
    rows.add_row("", me.peer_id)
    rows.add_row("gave", f"{me.samples_contributed:,} samples, {me.samples_per_second:,.0f} a second")
    for number, address in enumerate(me.addresses):
        rows.add_row("" if number else "address", address)


def peers_view(status: Status) -> RenderableType:
    """`peer peers`: all members, this one first."""
    in_stages = ("stage", "share") if status.stages else ()
    table = _table("name", "role", *in_stages, "epoch", "samples", "a second", "seen", "state", "PeerID")
    for member in members_of(status):
        banned = member.banned if isinstance(member, PeerStatus) else None
        suspended = _suspension(member) if isinstance(member, PeerStatus) else ""
        table.add_row(
            printable(member.name),
            printable(member.role),
            *((stage_text(member), share_text(status, member)) if in_stages else ()),
            str(member.epoch),
            f"{member.samples_contributed:,}",
            f"{member.samples_per_second:,.0f}",
            _seen(member),
            f"banned: {printable(banned)}" if banned else suspended or _short(member.state_digest),
            member.peer_id,
            style="red" if banned else "yellow" if suspended else "" if isinstance(member, PeerStatus) else "bold",
        )
    return table


def _seen(member: PeerStatus | SelfStatus) -> str:
    if isinstance(member, SelfStatus):
        return "here"
    return "-" if member.last_seen_seconds is None else f"{member.last_seen_seconds:.0f} s ago"


def stages_view(status: Status) -> Table:
    """The stages of a pipeline, and who is moving between them."""
    table = _table("stage", "peers", "epoch", "a second", "waiting", "moves")
    for stage in status.stages:
        moves = [f"{printable(m.name)} → {m.moving_to}" for m in movers_of(status) if m.stage == stage.number]
        table.add_row(
            str(stage.number),
            str(stage.peers),
            "" if stage.epoch is None else str(stage.epoch),
            f"{stage.microbatches_per_second:,.1f}",
            str(stage.queue),
            ", ".join(moves),
            style=_unless(stage.peers > 0, "red"),
        )
    return table


def report_view(report: "Report") -> RenderableType:
    """`peer doctor`."""
    signs = {"ok": Text("ok", "green"), "warning": Text("warning", "yellow"), "failed": Text("failed", "bold red")}
    rows = Table.grid(padding=(0, 2))
    for finding in report.findings:
        rows.add_row(signs[finding.verdict], finding.check, finding.detail)
        if finding.mend is not None:
            rows.add_row("", "", Text(f"→ {finding.mend}", "bold"))
    counted = sum(finding.verdict == "failed" for finding in report.findings)
    verdict = "this machine can take part" if report.able else f"{_count(counted, 'problem')} to mend before joining"
    return Group(rows, Text(f"\n{verdict}"))


def runs_view(manifests: "Mapping[str, Manifest | None]") -> RenderableType:
    """`peer run list`; a run whose manifest has not come yet has None."""
    table = _table("run", "epochs", "data", "model")
    for run, manifest in manifests.items():
        if manifest is None:
            table.add_row(run, "", "manifest not known yet", "")
        else:
            table.add_row(run, str(manifest.epochs), manifest.data.dataset, manifest.model.architecture)
    return table


def directives_view(known: DirectivesStatus) -> RenderableType:
    """`peer run directives`."""
    table = _table("number", "directive", "")
    for directive in known.directives:
        remark = _unless(directive.holds, "does not hold: contradicted, or one before it is missing")
        style = _unless(directive.holds, "yellow")
        table.add_row(str(directive.number), directive_text(directive), remark, style=style)
    return table


def directive_text(directive: DirectiveStatus) -> str:
    """One line."""
    since = f"from epoch {directive.epoch} on"
    match directive.action:
        case "ban":
            return f"ban {directive.peer}{_unless(not directive.why, f': {printable(directive.why or str())}')}"
        case "set":
            changes = ", ".join(f"{name} = {value:g}" for name, value in directive.changes.items())
            return f"set {changes} {since}"
        case "pause":
            return f"pause {since}"
        case _:
            return "resume"


def live_view(status: Status) -> RenderableType:
    """`peer watch`, and `peer join` on a terminal."""
    run = status.run
    bar = Table.grid(padding=(0, 1))
    bar.add_row(
        Text(run.name, "bold"),
        ProgressBar(total=run.total_epochs, completed=run.epoch, width=30),
        f"epoch {run.epoch}/{run.total_epochs}",
        *([f"loss {_number(run.loss)}", evaluation_text(run)] if status.self_ else []),
        _members(status),
        Text(_activity(status), "dim"),
    )
    parts: list[RenderableType] = [bar]
    if status.stages:
        parts += [stages_view(status), Text()]
    if status.peers:
        parts.append(peers_view(status))
    return Group(*parts)


def status_line(status: Status) -> str:
    """One change of the status as a line, where the output is no terminal."""
    run = status.run
    model = f"loss {_number(run.loss)}, {evaluation_text(run)}, " if status.self_ else ""
    peers = "/".join(str(stage.peers) for stage in status.stages)
    stages = f", {peers} at the stages" if peers else ""
    moves = "".join(f", {printable(mover.name)}: stage {stage_text(mover)}" for mover in movers_of(status))
    members = f"{_members(status)}{stages}{moves}"
    return f"{run.name} epoch {run.epoch}/{run.total_epochs} {_activity(status)}, {model}{members}"


def evaluation_text(run: RunStatus) -> str:
    """`accuracy 96.4 %`, or `2.31 bits per byte`."""
    if "accuracy" in run.evaluation:
        return f"accuracy {100 * run.evaluation['accuracy']:.1f} %"
    if "bits_per_byte" in run.evaluation:
        return f"{run.evaluation['bits_per_byte']:.3f} bits per byte"
    return "not evaluated yet"


def as_toml(fields: Mapping[str, Any], table: str = "") -> str:
    """Plain data as TOML: values first, then the tables inside."""
    inner = {key: value for key, value in fields.items() if isinstance(value, Mapping) and value}
    plain = {key: value for key, value in fields.items() if not isinstance(value, Mapping) and value is not None}
    lines = [f"[{table}]"] if table and plain else []
    lines += [f"{key} = {_toml_value(value)}" for key, value in plain.items()]
    tables = [as_toml(value, f"{table}.{key}" if table else key) for key, value in inner.items()]
    return "\n\n".join(filter(None, ["\n".join(lines), *tables]))


def _toml_value(value: Any) -> str:
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{key} = {_toml_value(inner)}" for key, inner in value.items()) + " }"
    if isinstance(value, list | tuple):
        return "[\n" + "".join(f"    {_toml_value(inner)},\n" for inner in value) + "]" if value else "[]"
    plain = not isinstance(value, str) or value.isprintable()
    return json.dumps(value, ensure_ascii=not plain, default=bytes.hex)  # TOML writes these as JSON does


def _table(*headings: str) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim", pad_edge=False)
    for heading in headings:
        is_number = heading in ("epoch", "epochs", "samples", "a second", "seen", "share", "waiting")
        table.add_column(
            heading,
            justify="right" if is_number else "left",
            no_wrap=heading != "PeerID",  # the column that gives way on a narrow terminal
            overflow="ellipsis",
        )
    return table


def _suspension(member: PeerStatus) -> str:
    return f"suspended for {_count(member.suspended, 'epoch')}" if member.suspended else ""


def _gossip(gossip: GossipStatus) -> str:
    distance, relative = gossip.consensus_distance, gossip.relative_consensus_distance
    share = "" if relative is None else f" ({100 * relative:.2g} % of the models' length)"
    return (
        f"{gossip.topology}, {gossip.mixing}, {_count(gossip.exchanges, 'exchange')}"
        + _unless(not gossip.failed_exchanges, f", {gossip.failed_exchanges} failed")
        + f", {_bytes(gossip.bytes_sent)} sent, {_bytes(gossip.bytes_received)} received, "
        + f"consensus distance {_number(distance)}{share}"
    )


def _members(status: Status) -> str:
    return _count(status.member_count, "member")


def _activity(status: Status) -> str:
    """Of this peer; from outside, of the run."""
    return status.self_.state if status.self_ else status.run.state


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


def _number(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.4f}"


def _short(state_digest: str | None) -> str:
    return state_digest[:12] if state_digest else "unknown"


def _unless(condition: bool, text: str) -> str:
    return "" if condition else text


def _bytes(count: float) -> str:
    for unit in ("B", "kB", "MB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} GB"
