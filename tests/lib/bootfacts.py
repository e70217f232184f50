"""What nodes and servers say of guests, and what is asked for, for tests: one line each."""

from datetime import UTC, datetime

from guestplans import TEMPLATE
from minicloud.booting.request import Request
from minicloud.model.guest import Guest, GuestKind, GuestState, Origin
from minicloud.storage.facts import ExportFacts, OverlayFacts

__all__ = ["export", "guest", "overlay", "request"]


def export(name, *, connections=0, is_added=True, age=None):
    return ExportFacts(
        name=name, description="", size=1, connections=connections, is_added=is_added, age=age,
        error=None,
    )  # fmt: skip


def overlay(name, *, export=None, allocated=100):
    return OverlayFacts(name=name, path=f"/o/{name}", size=1, allocated=allocated, export=export)


def guest(name, made_as=None):
    origin = made_as and Origin(
        kind=GuestKind.CATTLE, template="t", image="i", export=made_as, seed=None,
        created=datetime.now(UTC),
    )  # fmt: skip
    return Guest(
        name=name, uuid=name, node="n1", state=GuestState.RUNNING, vcpus=1, memory=1,
        is_active=True, is_persistent=False, origin=origin,
    )  # fmt: skip


def request(**fields):
    given = {
        "template": TEMPLATE, "name": "web1", "kind": GuestKind.CATTLE, "size": None,
        "memory": 1 << 30, "vcpus": 1, "network": "user", "tags": (), "hostname": "web1",
    }  # fmt: skip
    return Request(**{**given, **fields})
