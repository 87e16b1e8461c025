"""All checks in turn."""

import logging

import uvloop

from peer import logs
from peer.doctor.findings import Report, report
from peer.doctor.machine import (
    check_disk,
    check_home,
    check_memory,
    check_open_files,
    check_threads,
    check_versions,
)
from peer.doctor.network import check_network
from peer.home import Home
from peer.settings import DoctorSettings


def examine(settings: DoctorSettings) -> Report:
    """Takes some seconds: it starts nodes and dials them."""
    logs.configure("text", level=logging.ERROR)
    home = Home(settings.home)
    findings = [
        check_versions(),
        check_home(home),
        check_disk(home),
        check_memory(),
        check_threads(settings.threads),
        check_open_files(),
    ]
    return report([*findings, *uvloop.run(check_network(settings))])
