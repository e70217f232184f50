"""The file of chunks: where holes are punched, and who may."""

import errno
import os

import pytest

from nbdserve.cachestore.chunkfile import ChunkFile

SIZE = 1 << 20
BLOCK = 4096


@pytest.fixture
def path(tmp_path):
    return tmp_path / "image.data"


@pytest.fixture
def file(path):
    made = ChunkFile(path, SIZE)
    yield made
    made.close()


def test_it_is_made_sparse_and_of_the_right_size(file, path):
    assert path.stat().st_size == SIZE
    assert path.stat().st_blocks == 0
    assert list(file.allocated()) == []


def test_who_opens_it_first_is_alone_until_it_shares(file, path):
    assert file.alone
    with pytest.raises(BlockingIOError):
        ChunkFile(path, SIZE)
    file.share()
    other = ChunkFile(path, SIZE)
    assert not other.alone
    assert not file.try_alone()
    assert not other.try_alone()
    other.close()
    assert file.try_alone()


def test_a_failed_try_to_be_alone_still_shares(file, path):
    file.share()
    other = ChunkFile(path, SIZE)
    assert not file.try_alone()
    assert not other.try_alone(), "the first one has kept its lock"
    other.close()


def test_what_is_punched_is_a_hole(file, path):
    file.write(BLOCK, memoryview(b"x" * 4 * BLOCK))
    assert list(file.allocated()) == [(BLOCK, 4 * BLOCK)]
    file.punch([(2 * BLOCK, BLOCK), (SIZE - BLOCK, 3 * BLOCK)])
    assert list(file.allocated()) == [(BLOCK, BLOCK), (3 * BLOCK, 2 * BLOCK)]
    assert path.stat().st_size == SIZE
    file.clear()
    assert list(file.allocated()) == []
    assert path.stat().st_size == SIZE


def test_it_is_read_without_waiting_when_it_is_in_the_page_cache(file):
    file.write(5000, memoryview(b"some words"))
    view = memoryview(bytearray(10))
    assert file.read_nowait(5000, view)
    assert bytes(view) == b"some words"
    view = memoryview(bytearray(10))
    file.read(5000, view)
    assert bytes(view) == b"some words"


def test_a_file_cut_short_is_an_error(file, path):
    os.truncate(path, 100)
    with pytest.raises(OSError, match="cut short"):
        file.read(50, memoryview(bytearray(100)))
    assert not file.read_nowait(50, memoryview(bytearray(100)))


def test_where_no_holes_can_be_punched_that_is_found_out(path, monkeypatch):
    def refuse(*call):
        raise OSError(errno.EOPNOTSUPP, "no")

    monkeypatch.setattr("nbdserve.cachestore.chunkfile.fallocate", refuse)
    made = ChunkFile(path, SIZE)
    assert not made.punches
    made.punch([(0, BLOCK)])
    made.close()
