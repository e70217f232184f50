"""The map file: appended to by one, read by others, written anew when it is long."""

import os

import pytest

from nbdserve.cachestore.claims import Claims
from nbdserve.errors import CorruptDataError
from nbdserve.formats.cachemap import BLOCK, RECORD, Kind, Record

CHUNK = 512
SIZE = 100 * CHUNK - 1


@pytest.fixture
def path(tmp_path):
    return tmp_path / "image.map"


@pytest.fixture
def mine(path):
    claims = Claims.create(path, "image", SIZE, CHUNK)
    yield claims
    claims.close()


@pytest.fixture
def other(path, mine):
    claims = Claims.open(path)
    yield claims
    claims.close()


def data(number, value=1):
    return Record(Kind.DATA, number, value)


def test_what_is_appended_is_read_by_another(mine, other):
    mine.append([data(5, 77), mine.zero_record(99)])
    assert other.has_news()
    assert other.catch_up() == {5, 99}
    assert (other.kinds[5], other.kinds[99], other.checksum(5)) == (Kind.DATA, Kind.ZERO, 77)
    assert not other.has_news()
    mine.append([Record(Kind.GONE, 5, 0)])
    assert other.catch_up() == {5}
    assert other.kinds[5] == Kind.GONE


def test_only_one_may_append(mine, other):
    assert mine.locked
    assert not other.take_lock()


def test_the_lock_is_had_when_its_holder_has_ended(path):
    first = Claims.create(path, "image", SIZE, CHUNK)
    with_lock = Claims.open(path)
    assert not with_lock.take_lock()
    first.append([data(1)])
    first.close()
    assert with_lock.take_lock()
    assert with_lock.catch_up() == {1}
    with_lock.append([data(2)])
    with_lock.close()


def test_a_torn_record_at_the_end_is_written_over(path):
    first = Claims.create(path, "image", SIZE, CHUNK)
    first.append([data(1), data(2)])
    first.close()
    os.truncate(path, BLOCK + 2 * RECORD - 3)
    second = Claims.open(path)
    assert second.take_lock()
    assert second.catch_up() == {1}
    second.append([data(3)])
    second.close()
    third = Claims.open(path)
    assert third.catch_up() == {1, 3}
    third.close()


def test_records_that_cannot_be_true_are_left_out(mine, other):
    mine.append([data(5000), Record(Kind.USED, 5000, 1), Record(Kind.ZERO, 3, 12345)])
    assert other.catch_up() == set()
    assert other.used == {}


def test_it_is_written_anew_with_what_counts(path, mine):
    for _ in range(50):
        mine.append([data(7, 70), Record(Kind.GONE, 7, 0)])
    mine.append([data(7, 71), mine.zero_record(8), Record(Kind.USED, 0, 123)])
    mine.compact({0: 456, 1: 789})
    assert path.stat().st_size == BLOCK + 4 * RECORD
    mine.append([data(9)])
    found = Claims.open(path)
    assert found.catch_up() == {7, 8, 9}
    assert (found.checksum(7), found.used) == (71, {0: 456, 1: 789})
    found.close()


def test_who_has_the_old_file_open_reads_on_in_the_new_one(mine, other):
    mine.append([data(1), data(2)])
    other.catch_up()
    mine.append([Record(Kind.GONE, 1, 0)])
    mine.compact({})
    mine.append([data(3)])
    assert other.has_news()
    assert other.catch_up() == {1, 2, 3}
    assert [other.kinds[number] for number in (1, 2, 3)] == [Kind.GONE, Kind.DATA, Kind.DATA]
    assert not other.take_lock()


def test_the_lock_of_an_old_file_is_not_the_lock(path, mine, other):
    mine.compact({})
    assert not other.take_lock(), "nobody holds that of the old file, and it is worth nothing"
    assert not other.locked


def test_a_file_replaced_by_another_kind_is_told(path, mine, other):
    mine.append([data(1)])
    Claims.create(path, "image", SIZE, 2 * CHUNK).close()
    with pytest.raises(CorruptDataError, match="other chunks"):
        other.catch_up()


def test_it_is_worth_compacting_when_most_is_overtaken(mine, monkeypatch):
    monkeypatch.setattr("nbdserve.cachestore.claims._SLACK", 10)
    mine.append([data(n) for n in range(50)])
    assert not mine.is_worth_compacting()
    mine.append([data(n) for n in range(50)])
    mine.append([data(n) for n in range(11)])
    assert mine.is_worth_compacting()
    mine.compact({})
    assert not mine.is_worth_compacting()


def test_a_failed_append_counts_for_nothing(mine, path, other):
    from cow_chain import file_size_limit

    with file_size_limit(BLOCK + 2 * RECORD + 5), pytest.raises(OSError, match="too large"):
        mine.append([data(n) for n in range(4)])
    assert not any(mine.kinds[:])
    mine.append([data(9)])
    assert other.catch_up() >= {9}


def test_a_new_file_that_cannot_be_written_leaves_the_old_one(mine, path, tmp_path):
    from cow_chain import file_size_limit

    mine.append([data(n) for n in range(90)])
    with file_size_limit(BLOCK), pytest.raises(OSError, match="too large"):
        mine.compact({})
    mine.append([data(95)])
    found = Claims.open(path)
    assert len(found.catch_up()) == 91
    found.close()
    assert [file.name for file in tmp_path.iterdir()] == ["image.map"]
