"""Where a guest goes: the node with the most free memory that it fits on, and why.

Free is what mclu calls free: total - reserve - what the guests there may ask for. A node is never
overcommitted: its guests would be swapped or killed long after whoever started one too many has
left. vCPUs are shared, so they are not added up; a guest only cannot have more than its node.

Pure: who is asked, how and what comes of it is the caller's.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from minicloud.model.guest import NodeFacts
from minicloud.model.inventory import Node
from minicloud.model.sizes import size_text

__all__ = ["Candidate", "Needs", "Placement", "Score", "place"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Needs:
    """What a guest needs of its node.

    Attributes:
        memory: bytes.
        vcpus: how many.
        tags: the node has all of them.
    """

    memory: int
    vcpus: int
    tags: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Candidate:
    """A node that might take the guest.

    Attributes:
        node: as in the inventory.
        facts: what it says of itself; None where it says nothing.
        silence: why not, then.
    """

    node: Node
    facts: NodeFacts | None
    silence: str = ""


@dataclass(frozen=True, slots=True)
class Score:
    """How a node does.

    Attributes:
        node: its name.
        free: bytes it has to give; None where it did not say.
        fits: whether the guest may go there.
        reason: why it may not, or what is left when it does.
    """

    node: str
    free: int | None
    fits: bool
    reason: str


@dataclass(frozen=True, slots=True)
class Placement:
    """The outcome.

    Attributes:
        chosen: the node, or None if none will do.
        scores: of all candidates, the best first, then in the order given.
    """

    chosen: Node | None
    scores: Sequence[Score]

    @property
    def refusal(self) -> str:
        """Say in one line why no node will do; empty where one was chosen."""
        if self.chosen is not None:
            return ""
        if not self.scores:
            return "there is no node to place it on"
        return "; ".join(f"{score.node}: {score.reason}" for score in self.scores)


def place(candidates: Iterable[Candidate], needs: Needs) -> Placement:
    """Choose a node; of equals the first one given."""
    rated = [(candidate.node, _score(candidate, needs)) for candidate in candidates]
    rated.sort(key=lambda one: (not one[1].fits, -(one[1].free or 0) if one[1].fits else 0))
    best = rated[0] if rated else None
    chosen = best[0] if best is not None and best[1].fits else None
    return Placement(chosen, [score for _, score in rated])


def _score(candidate: Candidate, needs: Needs) -> Score:
    node, facts = candidate.node, candidate.facts
    missing = [tag for tag in needs.tags if tag not in node.tags]
    if missing:
        return Score(node.name, None, fits=False, reason=f"has no tag {', '.join(missing)}")
    if facts is None:
        return Score(node.name, None, fits=False, reason=candidate.silence or "did not answer")
    free = facts.memory_free(node.reserve)
    if free < needs.memory:
        return Score(
            node.name,
            free,
            fits=False,
            reason=f"needs {size_text(needs.memory)}, has {size_text(max(free, 0))} free of "
            f"{size_text(facts.memory)} ({size_text(node.reserve)} reserved, "
            f"{size_text(facts.memory_used)} for guests)",
        )
    if facts.cpus < needs.vcpus:
        reason = f"needs {needs.vcpus} vCPUs, has {facts.cpus} CPUs"
        return Score(node.name, free, fits=False, reason=reason)
    left = size_text(free - needs.memory)
    return Score(node.name, free, fits=True, reason=f"{left} left with it")
