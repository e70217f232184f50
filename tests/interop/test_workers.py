"""Several processes behind one socket, seen from outside."""

import os
import signal
import socket
import subprocess
from pathlib import Path

from daemon import daemon, nbdserve_argv, run_nbdserve
from tools import ENVIRONMENT


def workers_of(server):
    pid = server.process.pid
    return [int(n) for n in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def reads_right(server):
    script = "print(h.pread(8, 4096) == (4096).to_bytes(8, 'big'))"
    done = subprocess.run(
        ["nbdsh", "-u", server.uri(), "-c", script],
        capture_output=True, text=True, timeout=60, check=True, env=ENVIRONMENT,
    )  # fmt: skip
    return done.stdout == "True\n"


def test_each_worker_serves_and_all_end_together(tmp_path, image):
    pid_file = tmp_path / "pid"
    options = ["--workers", "2", "--read-only", "--pid-file", pid_file]
    with daemon("file", image, options=options) as server:
        assert int(pid_file.read_text()) == server.process.pid
        workers = workers_of(server)
        assert len(workers) == 2
        for halted in workers:
            os.kill(halted, signal.SIGSTOP)  # so that it must be the other who accepts
            try:
                assert reads_right(server)
            finally:
                os.kill(halted, signal.SIGCONT)
        assert server.terminate() == 0
        assert not server.socket.exists()
        assert not pid_file.exists()
        assert not any(Path(f"/proc/{pid}").exists() for pid in workers)


def test_if_one_ends_all_end(image):
    with daemon("file", image, options=["--workers", "3", "--read-only"]) as server:
        workers = workers_of(server)
        os.kill(workers[1], signal.SIGKILL)
        assert server.process.wait(60) == 128 + signal.SIGKILL
        assert "a worker ended unasked" in server.log
        assert not any(Path(f"/proc/{pid}").exists() for pid in workers)


def test_what_fails_when_all_are_ready_leaves_none_of_them(tmp_path, image):
    done = run_nbdserve(
        "--workers", "2", "--read-only", "-U", tmp_path / "sock", "--pid-file",
        tmp_path / "none" / "pid", "file", image,
    )  # fmt: skip
    assert (done.returncode, done.stderr.count("cannot write the pid file")) == (1, 1)
    assert done.stderr.count("asked to stop signal=SIGTERM") == 2
    assert not (tmp_path / "sock").exists()


def test_the_service_manager_hears_of_a_watchdog_that_all_pat(tmp_path, image):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify:
        notify.bind(str(tmp_path / "notify"))
        notify.settimeout(60)
        environment = {
            **os.environ, "NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "100000",
        }  # fmt: skip
        words = ("--workers", "3", "--read-only", "-U", tmp_path / "sock", "file", image)
        with subprocess.Popen(nbdserve_argv(*words), env=environment) as process:
            heard = [notify.recv(4096) for _ in range(3)]
            process.terminate()
            assert process.wait(60) == 0
    assert heard[0].startswith(b"READY=1\n")
    assert heard[1:] == [b"WATCHDOG=1"] * 2


def test_an_export_that_cannot_be_opened_is_told_once(tmp_path):
    done = run_nbdserve(
        "--workers", "4", "--read-only", "-U", tmp_path / "sock", "file", tmp_path / "missing.img"
    )
    assert done.returncode == 1
    assert done.stderr.count("missing.img") == 1
    assert not (tmp_path / "sock").exists()


def test_what_may_be_written_to_is_refused(tmp_path, image):
    done = run_nbdserve("--workers", "2", "-U", tmp_path / "sock", "file", image)
    assert done.returncode == 2
    assert "--read-only" in done.stderr
    done = run_nbdserve("--workers", "2", "--read-only", "--run", "true", "file", image)
    assert done.returncode == 2
    assert run_nbdserve("--workers", "0", "file", image).returncode == 2
