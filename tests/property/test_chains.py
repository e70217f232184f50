"""Random chains of layers keep the contract of Device under random operations.

The settings are fixed and derandomised: a failure shows on every machine, and is the same one.
"""

import contextlib
import tempfile
from pathlib import Path

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from chains import chain, packed, pattern, sparse
from nbdserve.testing.conformance import state_machine_for

CLUSTER = 64 << 10
DETERMINISTIC = settings(
    derandomize=True,
    database=None,
    deadline=None,
    max_examples=300,
    stateful_step_count=25,
    suppress_health_check=list(HealthCheck),
)

SOURCES = st.sampled_from(["file", "memory", "pattern", "xz"])
SIZES = st.sampled_from([0, 1, 4096, 100_003, 3 * CLUSTER])
LAYERS = st.lists(
    st.sampled_from(
        [
            "cache:size=1M",
            "cache:size=8K,block=512",
            "cow",
            "cow:cluster=4K",
            "delay:read=0",
            "error:rate=0",
            "log",
            "readahead:size=64K",
            "readonly",
            "slice",
            "slice:offset=0",
            "stats",
        ]
    ),
    max_size=4,
)


@contextlib.asynccontextmanager
async def opened(source, layers, size, shift):
    """Open a chain over a source that is `shift` bytes larger than what a slice at the end shows.

    The slice is nearest the source or nearest the client, so that offsets shift at either end.
    """
    whole = pattern(size + shift) if source == "pattern" else sparse(size + shift)
    place = f"slice:offset={shift}"
    layers = [*layers, place] if shift % 2 else [place, *layers]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "disk.img"
        words, fill = [source, str(len(whole))], source == "memory" and whole
        if source in {"file", "xz"}:
            path.write_bytes(whole if source == "file" else packed(whole))
            words = ["file", str(path)]
        if source == "xz":
            layers = [*layers, "xz"]
        async with chain(words, *layers, contents=whole[shift:], fill=fill) as subject:
            yield subject


Chains = state_machine_for(opened, SOURCES, LAYERS, SIZES, st.sampled_from([0, 1, 4096, 5001]))
TestChains = Chains.TestCase
TestChains.settings = DETERMINISTIC
