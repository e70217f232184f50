"""Guests as values, for tests of what is said about them."""

from datetime import UTC, datetime

from minicloud.model.guest import Guest, GuestKind, GuestState, Origin

__all__ = ["MADE", "guest", "origin"]

MADE = datetime(2026, 11, 25, 12, tzinfo=UTC)


def origin(**changed):
    """What minicloud wrote into web1."""
    given = {
        "kind": GuestKind.CATTLE, "template": "debian", "image": "https://example.com/debian.xz",
        "export": "guest/web1", "seed": "seed/web1", "created": MADE, "user": "op@desk",
    }  # fmt: skip
    return Origin(**given | changed)


def guest(**changed):
    """web1, which runs on ham1."""
    given = {
        "name": "web1", "uuid": "b71a78f6-6a6a-4329-b488-6d3e4cd88330", "node": "ham1",
        "state": GuestState.RUNNING, "reason": "", "vcpus": 2, "memory": 1 << 30,
        "is_active": True, "is_persistent": False, "origin": origin(),
    }  # fmt: skip
    return Guest(**given | changed)
