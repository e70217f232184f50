"""libnbd's tools against a running nbdserve: nbdinfo, nbdcopy, nbdsh."""

import json
import subprocess
import textwrap

import pytest

from daemon import daemon
from tools import ENVIRONMENT


def run(*argv, **options):
    return subprocess.run(
        [str(word) for word in argv], capture_output=True, text=True, timeout=120, check=True,
        env=ENVIRONMENT, **options,
    ).stdout  # fmt: skip


def nbdsh(uri, script):
    """Run a script with `h` connected to `uri`, structured replies and base:allocation on."""
    code = textwrap.dedent(script)
    return run("nbdsh", "--base-allocation", "-u", uri, "-c", "import errno\n" + code)


def test_nbdinfo_tells_size_flags_and_block_sizes(image, pattern):
    with daemon("file", image, options=["--description", "a test disk"]) as server:
        told = json.loads(run("nbdinfo", "--json", server.uri()))
    assert told["protocol"] == "newstyle-fixed"
    assert told["structured"] is True
    (export,) = told["exports"]
    assert export["export-size"] == len(pattern)
    assert export["description"] == "a test disk"
    assert export["is_read_only"] is False
    assert export["can_multi_conn"] is True
    for flag in ("flush", "fua", "trim", "zero", "cache", "df"):
        assert export[f"can_{flag}"] is True, flag
    assert "base:allocation" in export["contexts"]
    assert export["block_size_minimum"] == 1
    assert export["block_size_maximum"] >= 32 << 20


def test_nbdinfo_of_a_read_only_export_offers_no_writes(image):
    with daemon("file", image, options=["-r"]) as server:
        (export,) = json.loads(run("nbdinfo", "--json", server.uri()))["exports"]
    assert export["is_read_only"] is True
    assert export["can_trim"] is False
    assert export["can_zero"] is False


def test_nbdinfo_map_shows_the_hole(image, tmp_path):
    sparse = tmp_path / "sparse.img"
    run("cp", "--sparse=always", image, sparse)
    with daemon("file", sparse) as server:
        extents = json.loads(run("nbdinfo", "--map", "--json", server.uri()))
    assert [(e["offset"], e["length"], e["type"]) for e in extents] == [
        (0, 1 << 20, 0),
        (1 << 20, 1 << 20, 3),
        (2 << 20, 2 << 20, 0),
    ]


def test_nbdinfo_lists_the_exports_of_a_configuration(image, tmp_path):
    config = tmp_path / "nbdserve.toml"
    config.write_text(
        f"""
        [[export]]
        name = "disk"
        description = "the disk"
        source = {{ type = "file", path = "{image}" }}

        [[export]]
        name = "zeroes"
        source = {{ type = "null", size = "1G" }}
        """
    )
    with daemon(options=["--config", config]) as server:
        told = json.loads(run("nbdinfo", "--list", "--json", server.uri()))
    assert [(e["export-name"], e["export-size"]) for e in told["exports"]] == [
        ("disk", 4 << 20),
        ("zeroes", 1 << 30),
    ]
    assert told["exports"][0]["description"] == "the disk"


@pytest.mark.parametrize("connections", [1, 4])
def test_nbdcopy_reads_every_byte(image, pattern, tmp_path, connections):
    copy = tmp_path / "copy.img"
    with daemon("file", image) as server:
        run("nbdcopy", f"--connections={connections}", server.uri(), copy)
    assert copy.read_bytes() == pattern


def test_nbdcopy_writes_every_byte(image, pattern, tmp_path):
    target = tmp_path / "target.img"
    target.write_bytes(b"\xff" * len(pattern))
    with daemon("file", target) as server:
        run("nbdcopy", "--connections=4", "--flush", image, server.uri())
    assert target.read_bytes() == pattern


def test_nbdcopy_over_tcp_with_a_named_export(image, pattern, tmp_path):
    import socket

    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    copy = tmp_path / "copy.img"
    with daemon("file", image, options=["-p", port, "-e", "my disk"]):
        run("nbdcopy", f"nbd://127.0.0.1:{port}/my%20disk", copy)
    assert copy.read_bytes() == pattern


@pytest.fixture
def memory():
    with daemon("memory", "1M") as server:
        yield server.uri()


def test_nbdsh_every_command(memory):
    nbdsh(
        memory,
        """
        h.pwrite(b"hello" * 100, 0)
        assert h.pread(500, 0) == b"hello" * 100
        h.flush()
        h.zero(100, 0)
        assert h.pread(100, 0) == bytes(100)
        h.trim(65536, 0)
        h.cache(65536, 0)
        entries = []
        h.block_status(1 << 20, 0, lambda context, offset, e, err: entries.extend(e))
        assert sum(entries[::2]) == 1 << 20, entries
        h.shutdown()
        """,
    )


def test_nbdsh_every_flag(memory):
    nbdsh(
        memory,
        """
        h.set_strict_mode(h.get_strict_mode() & ~nbd.STRICT_FLAGS & ~nbd.STRICT_COMMANDS)
        h.pwrite(b"x" * 512, 0, nbd.CMD_FLAG_FUA)
        h.zero(512, 0, nbd.CMD_FLAG_FUA | nbd.CMD_FLAG_NO_HOLE)
        h.zero(512, 0, nbd.CMD_FLAG_FAST_ZERO)
        h.trim(512, 0, nbd.CMD_FLAG_FUA)
        h.pread(512, 0, nbd.CMD_FLAG_DF)
        # libnbd has no FUA on reads, flushes and caches; Linux does: see the unit tests
        lengths = []
        h.block_status(1 << 20, 0, lambda c, o, e, err: lengths.append(e),
                       nbd.CMD_FLAG_REQ_ONE)
        assert len(lengths) == 1 and len(lengths[0]) == 2, lengths
        """,
    )


def test_nbdsh_structured_read_reports_holes(memory):
    nbdsh(
        memory,
        """
        h.pwrite(b"data" * 1024, 0)
        chunks = []
        def chunk(buf, offset, status, err):
            chunks.append((offset, len(buf), status))
        h.pread_structured(4096, 0, chunk)
        h.pread_structured(65536, 65536, chunk)
        assert chunks == [(0, 4096, nbd.READ_DATA), (65536, 65536, nbd.READ_HOLE)], chunks
        """,
    )


@pytest.mark.parametrize(
    ("call", "error"),
    [
        ("h.pread(512, 1 << 20)", "EINVAL"),
        ('h.pwrite(b"x", 1 << 20)', "ENOSPC"),
        ("h.zero(512, (1 << 20) - 1)", "ENOSPC"),
        ("h.trim(512, 1 << 20)", "EINVAL"),
        ("h.cache(512, 1 << 20)", "EINVAL"),
        ("h.block_status(512, 1 << 20, lambda *a: 0)", "EINVAL"),
        ("h.pread(512, 0, 1 << 15)", "EINVAL"),
        ('h.pwrite(b"x", 0, 1 << 15)', "EINVAL"),
        ("h.pread(512, 0xffff_ffff_ffff_fe00)", "EINVAL"),
    ],
)  # fmt: skip
def test_nbdsh_errors_and_the_connection_goes_on(memory, call, error):
    nbdsh(
        memory,
        f"""
        h.set_strict_mode(0)
        try:
            {call}
            assert False, "no error"
        except nbd.Error as exc:
            assert exc.errno == "{error}", exc
        assert h.pread(512, 0) == bytes(512)
        """,
    )


def test_nbdsh_writes_to_a_read_only_export_are_eperm(image):
    with daemon("file", image, options=["--read-only"]) as server:
        nbdsh(
            server.uri(),
            """
            h.set_strict_mode(0)
            for write in (lambda: h.pwrite(b"x" * 300000, 0), lambda: h.zero(512, 0),
                          lambda: h.trim(512, 0)):
                try:
                    write()
                    assert False
                except nbd.Error as exc:
                    assert exc.errno == "EPERM", exc
            assert len(h.pread(512, 0)) == 512
            """,
        )


def test_nbdsh_a_write_of_32_mib_arrives(tmp_path):
    with daemon("memory", "64M") as server:
        nbdsh(
            server.uri(),
            """
            data = b"0123456789abcdef" * (1 << 21)
            h.pwrite(data, 1000)
            assert h.pread(1 << 25, 1000) == data
            """,
        )


def test_nbdsh_many_requests_in_flight_come_back_in_any_order(image, pattern):
    with daemon("--layer", "delay:read=1ms", "file", image) as server:
        nbdsh(
            server.uri(),
            """
            import struct
            buffers = [nbd.Buffer(4096) for _ in range(64)]
            cookies = [h.aio_pread(b, n * 4096) for n, b in enumerate(buffers)]
            done = set()
            while len(done) < 64:
                h.poll(-1)
                done |= {c for c in cookies if c not in done and h.aio_command_completed(c)}
            for n, b in enumerate(buffers):
                assert b.to_bytearray()[:8] == struct.pack(">Q", n * 4096)
            """,
        )


def test_nbdsh_multi_conn_flush_covers_the_other_connection(image):
    """Mistake (9): per-connection write caches behind CAN_MULTI_CONN."""
    with daemon("--layer", "cow", "file", image) as server:
        nbdsh(
            server.uri(),
            f"""
            other = nbd.NBD()
            other.connect_uri("{server.uri()}")
            assert h.can_multi_conn()
            h.pwrite(b"written on one" * 100, 5)
            other.flush()
            assert other.pread(1400, 5) == b"written on one" * 100
            """,
        )


def test_nbdsh_a_single_connection_on_stdin_and_stdout(image):
    import sys

    run(
        "nbdsh",
        "-c",
        textwrap.dedent(
            f"""
            h.connect_command(["{sys.executable}", "-m", "nbdserve", "-s", "file", "{image}"])
            assert h.get_size() == {4 << 20}
            assert h.pread(8, 8) == (8).to_bytes(8, "big")
            """
        ),
    )
