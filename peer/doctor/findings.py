"""What a check comes to, and the report of all: the versioned object of `peer doctor --json`."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


class Finding(BaseModel):
    """One check. A `warning` costs speed or reach; `failed` would stop this machine from taking part."""

    model_config = ConfigDict(frozen=True)

    check: str
    verdict: Literal["ok", "warning", "failed"]
    detail: str
    mend: str | None = Field(None, description="What to do about it; None when it is well")


class Report(BaseModel):
    """All findings, in the order in which they were made."""

    model_config = ConfigDict(frozen=True, populate_by_name=True)

    schema_version: Literal[1] = Field(1, alias="schema")
    able: bool = Field(description="Whether this machine can take part: no check has failed")
    findings: tuple[Finding, ...]

    def to_json(self) -> str:
        return self.model_dump_json(by_alias=True)


def report(findings: list[Finding]) -> Report:
    return Report(able=all(finding.verdict != "failed" for finding in findings), findings=tuple(findings))


def ok(check: str, detail: str) -> Finding:
    return Finding(check=check, verdict="ok", detail=detail)


def warning(check: str, detail: str, mend: str) -> Finding:
    return Finding(check=check, verdict="warning", detail=_in_a_line(detail), mend=mend)


def failed(check: str, detail: str, mend: str) -> Finding:
    return Finding(check=check, verdict="failed", detail=_in_a_line(detail), mend=mend)


def _in_a_line(text: str) -> str:
    """The network process breaks its messages."""
    return " ".join(text.split())
