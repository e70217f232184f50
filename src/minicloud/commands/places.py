"""A node for a guest that needs one: the planned one, or the next that has room and takes it."""

from collections.abc import Awaitable, Callable, MutableMapping

from minicloud.errors import MinicloudError
from minicloud.moving.capacity import emptiest
from minicloud.moving.finding import Finding, problems

__all__ = ["find_place"]


async def find_place(
    need: int,
    free: MutableMapping[str, int],
    first: str | None,
    check: Callable[[str], Awaitable[tuple[Finding, ...]]],
) -> tuple[str | None, str]:
    """Find a node whose checks have no problem, and take the room there.

    Args:
        need: bytes of memory.
        free: bytes by node; what the guest takes is taken off.
        first: the node to begin with, or None for the one with most room.
        check: asks a node; its MinicloudError rules the node out.

    Returns:
        The node, or None and why none will do.
    """
    refused: dict[str, str] = {}
    name = first if first is not None and free.get(first, -1) >= need else None
    while (name := name or emptiest(need, free, but=refused)) is not None:
        try:
            found = [str(finding) for finding in problems(await check(name))]
        except MinicloudError as exc:
            found = [f"{name}: {exc}"]
        if not found:
            free[name] -= need
            return name, ""
        refused[name] = found[0]
        name = None
    return None, "; ".join(refused.values()) or "no node that answers has room for it"
