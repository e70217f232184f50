"""Unix sockets: nobody may connect before they have their rights, and the umask stays."""

import os
import stat
from pathlib import Path

import pytest

from nbdserve.server.listener import listen
from nbdserve.settings import UnixListener


@pytest.fixture
def umask():
    before = os.umask(0o027)
    yield
    os.umask(before)


def mode_of(path):
    return stat.S_IMODE(path.lstat().st_mode)


@pytest.mark.parametrize(("mode", "want"), [(None, 0o750), (0o660, 0o660), (0o600, 0o600)])
def test_a_socket_has_no_rights_until_it_has_the_right_ones(
    tmp_path, monkeypatch, umask, mode, want
):
    path, before = tmp_path / "nbd.sock", []
    real = Path.chmod

    def chmod(self, wanted):
        before.append(mode_of(self))
        real(self, wanted)

    monkeypatch.setattr(Path, "chmod", chmod)
    (listener,) = listen(UnixListener(path, mode=mode))
    assert (before, mode_of(path)) == ([0], want)
    listener.close()


def test_the_umask_of_the_process_stays_as_it_is(tmp_path, monkeypatch):
    """Another thread may be making a file just then."""

    def umask(_):
        raise AssertionError("it is the whole process's")

    monkeypatch.setattr(os, "umask", umask)
    (listener,) = listen(UnixListener(tmp_path / "nbd.sock"))
    listener.close()
