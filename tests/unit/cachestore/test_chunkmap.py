"""What is known of the chunks of an image."""

from hypothesis import given
from hypothesis import strategies as st

from nbdserve.cachestore.chunkmap import GROUP, ChunkMap, ChunkState, StateRun

CHUNK = 512
COUNT = 5 * GROUP + 3
SIZE = COUNT * CHUNK - 100
ABSENT, CLAIMED, DATA, ZERO = ChunkState


@given(st.lists(st.tuples(st.integers(0, COUNT - 1), st.sampled_from(ChunkState))))
def test_it_counts_what_it_holds(changes):
    chunks = ChunkMap(SIZE, CHUNK)
    states = [ABSENT] * COUNT
    for number, state in changes:
        chunks.put(number, state)
        states[number] = state
    loaded = ChunkMap(SIZE, CHUNK)
    loaded.load(bytes(states))
    for found in (chunks, loaded):
        assert list(found.states[:]) == states
        stored = [state in (CLAIMED, DATA) for state in states]
        groups = {n // GROUP: sum(stored[n : n + GROUP]) for n in range(0, COUNT, GROUP)}
        assert found.groups == {group: count for group, count in groups.items() if count}
        assert found.stored == sum(stored)
        assert found.zeroes == states.count(ZERO)


@given(
    st.lists(st.sampled_from(ChunkState), min_size=COUNT, max_size=COUNT),
    st.integers(0, SIZE),
    st.integers(0, SIZE),
)
def test_runs_cover_a_range_and_tell_its_states(states, one, other):
    chunks = ChunkMap(SIZE, CHUNK)
    chunks.load(bytes(states))
    start, end = sorted((one, other))
    at = start
    for run in chunks.runs(start, end - start):
        assert run.offset == at
        assert run.length > 0
        covered = range(run.offset // CHUNK, (run.offset + run.length - 1) // CHUNK + 1)
        assert {states[number] for number in covered} == {run.state}
        at += run.length
    assert at == end
    touched = states[start // CHUNK : -(-end // CHUNK)]
    assert chunks.is_ready(start, end - start) == all(state in (DATA, ZERO) for state in touched)


def test_neighbours_in_one_state_are_one_run():
    chunks = ChunkMap(SIZE, CHUNK)
    chunks.put(2, DATA)
    chunks.put(3, DATA)
    assert list(chunks.runs(100, SIZE - 100)) == [
        StateRun(ABSENT, 100, 2 * CHUNK - 100),
        StateRun(DATA, 2 * CHUNK, 2 * CHUNK),
        StateRun(ABSENT, 4 * CHUNK, SIZE - 4 * CHUNK),
    ]


def test_the_first_absent_chunk_is_found():
    chunks = ChunkMap(SIZE, CHUNK)
    for number in range(10):
        chunks.put(number, ZERO)
    assert chunks.absent_from(0) == 10
    assert chunks.absent_from(12) == 12
    for number in range(10, COUNT):
        chunks.put(number, CLAIMED)
    assert chunks.absent_from(0) == COUNT


def test_groups_that_take_room_are_listed_and_zeroes_take_none():
    chunks = ChunkMap(SIZE, CHUNK)
    for group in (0, 1, 2):
        chunks.put(group * GROUP, DATA)
    chunks.put(GROUP + 1, CLAIMED)
    chunks.put(4 * GROUP, ZERO)
    assert chunks.stored_groups(without=[2]) == [(0, CHUNK), (1, 2 * CHUNK)]


def test_the_last_chunk_and_group_are_parts_of_one():
    chunks = ChunkMap(SIZE, CHUNK)
    for number in range(5 * GROUP, chunks.count):
        chunks.put(number, ChunkState.DATA)
    assert chunks.take_out([5]) == [5 * GROUP, 5 * GROUP + 1, 5 * GROUP + 2]
    assert chunks.take_out([0, 5]) == []
    assert chunks.stored == 0
    assert ChunkMap(0, CHUNK).absent_from(0) == 0
