"""Opening an image: rights, kinds, sizes and locks."""

import errno
import os
import shutil
import socket
import subprocess

import pytest

from nbdserve.errors import DeviceError
from nbdserve.sources.openfile import open_image


@pytest.fixture
def opened():
    """Open images that are closed at the end."""
    images = []

    def make(path, *, read_only=False, lock=None):
        found = open_image(path, read_only=read_only, lock=lock)
        images.append(found.image)
        return found

    yield make
    for image in images:
        image.close()


def test_it_is_writable_unless_asked_otherwise(opened, path):
    assert opened(path).writable
    assert not opened(path, read_only=True).writable


@pytest.mark.parametrize("code", [errno.EACCES, errno.EPERM, errno.EROFS])
def test_a_file_that_may_not_be_written_is_read_only(opened, path, caplog, monkeypatch, code):
    def refuse(name, flags):
        if flags & os.O_RDWR:
            raise OSError(code, os.strerror(code))
        return real(name, flags)

    real = os.open
    monkeypatch.setattr(os, "open", refuse)
    assert not opened(path).writable
    assert os.strerror(code) in caplog.text
    assert caplog.records[0].levelname == "WARNING"


def test_a_running_program_is_read_only(opened, tmp_path, caplog):
    program = tmp_path / "sleep"
    shutil.copy(shutil.which("sleep"), program)
    with subprocess.Popen([program, "60"]) as running:
        try:
            assert not opened(program).writable
        finally:
            running.kill()
    assert "read-only" in caplog.text


def test_a_file_nobody_may_read_is_one_line_with_a_remedy(opened, path, monkeypatch):
    def refuse(name, flags):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(DeviceError, match=r"Permission denied; check its permissions") as caught:
        opened(path)
    assert caught.value.errno == errno.EACCES


def test_a_missing_file_is_one_line_with_a_remedy(opened, tmp_path):
    with pytest.raises(DeviceError, match=r"none\.img: No such file.*; check the path"):
        opened(tmp_path / "none.img")


@pytest.mark.parametrize("read_only", [True, False])
def test_a_folder_is_one_line_with_a_remedy(opened, tmp_path, read_only):
    with pytest.raises(DeviceError, match=r"name an? .*image") as caught:
        opened(tmp_path, read_only=read_only)
    assert "\n" not in str(caught.value)


def test_a_fifo_is_refused_at_once(opened, tmp_path):
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(DeviceError, match="neither a file nor a block device"):
        opened(tmp_path / "fifo")


def test_a_socket_is_refused(opened, tmp_path):
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "socket"))
        with pytest.raises(DeviceError, match="name a disk image"):
            opened(tmp_path / "socket")


def test_a_second_writer_is_refused_with_a_remedy(opened, path):
    opened(path)
    with pytest.raises(DeviceError, match=r"another process uses it.*lock=false") as caught:
        opened(path)
    assert caught.value.errno == errno.EBUSY


def test_readers_need_no_lock_unless_they_ask(opened, path):
    opened(path)
    opened(path, read_only=True)
    opened(path, lock=False)
    with pytest.raises(DeviceError, match="another process writes to it"):
        opened(path, read_only=True, lock=True)


def test_readers_with_locks_share_and_keep_writers_out(opened, path):
    opened(path, read_only=True, lock=True)
    opened(path, read_only=True, lock=True)
    with pytest.raises(DeviceError, match="another process uses it"):
        opened(path)


def test_a_lock_ends_with_the_image(path):
    for _ in range(2):
        open_image(path, read_only=False, lock=None).image.close()


def test_a_file_system_without_locks_is_a_warning(opened, path, caplog, monkeypatch):
    def flock(fd, operation):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr("fcntl.flock", flock)
    assert opened(path).writable
    assert "cannot be locked" in caplog.text
