"""The main job, shown whole: a remote xz-compressed image, served over NBD and copied back.

Without an argument it makes an image (partition table, ext4, no root, no loop device), compresses
it into 16 MiB blocks and puts it behind nginx on loopback. With a URL it takes that image.
Everything it makes lies under build/demo, the copy is removed, and every process it started is
ended, however it ends itself.
"""

import contextlib
import hashlib
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, NoReturn

FOLDER = Path("build/demo").resolve()
SIZE = 256 << 20
CONTENT = 96 << 20  # of real files: what xz has to work on; the rest is holes
START = 2048 * 512  # the first partition, where every partitioning tool puts it
ENDINGS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
NBDSERVE = [sys.executable, "-m", "nbdserve"]
NBDCTL = [sys.executable, "-m", "nbdserve.nbdctl"]
ENVIRONMENT = {**os.environ, "PATH": f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"}


class DemoError(Exception):
    """What went wrong, one line with the remedy."""


def main() -> int:
    """Run the demo; return the exit status."""
    for number in ENDINGS:
        signal.signal(number, end)
    url = sys.argv[1] if len(sys.argv) > 1 else None
    try:
        FOLDER.mkdir(parents=True, exist_ok=True)
        if url is not None:
            return serve_and_copy(url, None, None)
        image = make_image()
        packed = compress(image)
        with web_server(packed.parent) as (base, log):
            return serve_and_copy(f"{base}/{packed.name}", image, log)
    except (DemoError, OSError) as exc:
        print(f"demo: {exc}", file=sys.stderr)
        return 1


def end(number: int, _: object) -> NoReturn:
    """Leave by way of every `finally`, undisturbed by a second signal."""
    for ending in ENDINGS:
        signal.signal(ending, signal.SIG_IGN)
    print("demo: interrupted", file=sys.stderr)
    sys.exit(128 + number)


def say(text: str) -> None:
    """Announce a step."""
    print(f"\n== {text}", flush=True)


def run(*argv: object, **options: Any) -> subprocess.CompletedProcess[str]:
    """Run a command to its end; a failure is one line."""
    words = [str(word) for word in argv]
    try:
        done: subprocess.CompletedProcess[str] = subprocess.run(
            words, check=True, text=True, env=ENVIRONMENT, **options
        )
    except FileNotFoundError:
        raise DemoError(f"{words[0]} is not installed; try: make demo as root") from None
    except subprocess.CalledProcessError as exc:
        raise DemoError(f"{words[0]} failed with exit status {exc.returncode}") from None
    return done


def make_image() -> Path:
    """Make a partitioned disk with a file system of real files on it, and holes."""
    image = FOLDER / "disk.img"
    if image.exists():
        return image
    say(
        f"making a disk image of {SIZE >> 20} MiB: one partition, ext4, files of this machine on it"
    )
    tree = FOLDER / "tree"
    shutil.rmtree(tree, ignore_errors=True)
    tree.mkdir()
    (tree / "hello.txt").write_text("This file came over HTTP, out of xz, through NBD.\n")
    fill(tree)
    fresh = image.with_suffix(".new")
    with fresh.open("wb") as disk:
        disk.truncate(SIZE)
    run("sfdisk", "-q", fresh, input=f"label: dos\nstart={START // 512}, type=83\n")
    run("mke2fs", "-q", "-F", "-t", "ext4", "-L", "demo", "-d", tree, "-E", f"offset={START}",
        fresh, f"{(SIZE - START) // 1024}k", stdin=subprocess.DEVNULL)  # fmt: skip
    shutil.rmtree(tree)
    fresh.rename(image)
    return image


def fill(tree: Path) -> None:
    """Copy programs and libraries of this machine into `tree`, CONTENT bytes at most."""
    room = CONTENT
    for origin in (Path("/usr/bin"), Path(os.__file__).parent, Path("/usr/lib")):
        for folder, _, names in os.walk(origin):
            for file in (Path(folder, name) for name in sorted(names)):
                if room < 1 << 20:
                    return
                if file.is_symlink() or not file.is_file() or not os.access(file, os.R_OK):
                    continue
                target = tree / file.relative_to("/")
                if file.stat().st_size > room or target.exists():
                    continue
                room -= file.stat().st_size
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(file, target)


def compress(image: Path) -> Path:
    """Compress an image into xz blocks of 16 MiB."""
    folder = FOLDER / "web"
    folder.mkdir(exist_ok=True)
    packed = folder / f"{image.name}.xz"
    if not packed.exists():
        say("compressing it: xz --block-size=16MiB")
        fresh = packed.with_suffix(".new")
        with fresh.open("wb") as out:
            run("xz", "-T0", "-3", "--block-size=16MiB", "--stdout", image, stdout=out)
        fresh.rename(packed)
    print(f"{image.name}: {SIZE >> 20} MiB, {packed.name}: {packed.stat().st_size / 2**20:.1f} MiB")
    return packed


@contextlib.contextmanager
def web_server(folder: Path) -> Iterator[tuple[str, Path]]:
    """Run nginx on a free loopback port, as an ordinary user; gives its address and its log."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    say(f"starting nginx on 127.0.0.1:{port}")
    place = FOLDER / "nginx"
    shutil.rmtree(place, ignore_errors=True)
    (place / "tmp").mkdir(parents=True)
    paths = " ".join(
        f"{kind}_temp_path {place}/tmp;"
        for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    user = "user root;" if os.geteuid() == 0 else ""  # else its worker may not read this folder
    (place / "nginx.conf").write_text(
        f"{user} daemon off; worker_processes 1; pid {place}/pid; error_log {place}/error.log;\n"
        "events { worker_connections 64; }\n"
        "http { log_format hits '$status|$http_range|$body_bytes_sent';\n"
        f"access_log {place}/access.log hits; {paths}\n"
        f"server {{ listen 127.0.0.1:{port}; root {folder}; }} }}\n"
    )
    argv = ["nginx", "-p", place, "-c", place / "nginx.conf", "-e", place / "error.log"]
    try:
        process = subprocess.Popen(
            [str(word) for word in argv], env=ENVIRONMENT,
            stderr=subprocess.DEVNULL, stdin=subprocess.DEVNULL,
        )  # fmt: skip
    except FileNotFoundError:
        raise DemoError("nginx is not installed; try: make demo as root") from None
    try:
        for _ in range(200):
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)):
                break
            if process.poll() is not None:
                raise DemoError(f"nginx did not start; see {place}/error.log")
            time.sleep(0.05)
        yield f"http://127.0.0.1:{port}", place / "access.log"
    finally:
        process.terminate()
        process.wait()


def serve_and_copy(url: str, image: Path | None, log: Path | None) -> int:
    """Serve `url` on a Unix socket, copy it back, compare, and tell what that cost."""
    target = FOLDER / "copy.img"
    try:
        with nbdserve(url) as (uri, told):
            if image is None:
                say(f"nbdctl inspect --layer xz http {url}")
                run(*NBDCTL, "inspect", "--layer", "xz", "http", url)
            seconds = copy_back(uri, target)
        say("comparing")
        compare(target, image)
        requests, fetched, size = cost(told) if log is None else witnessed(log)
        print(
            f"{requests} HTTP requests, {fetched} bytes fetched of a file of {size} "
            f"({fetched / size:.3f} x), {target.stat().st_size / 2**20 / seconds:.0f} MiB/s"
        )
    finally:
        target.unlink(missing_ok=True)
    print("\nIt works. Type next:\n")
    if image is None:
        print(f"  .venv/bin/nbdserve --layer cow --layer xz http {shlex.quote(url)} \\")
        print("    --run 'qemu-system-x86_64 -m 1G -drive file=$uri,format=raw,if=virtio'")
    else:
        print("  make test                     # the whole test suite, a guest's boot included")
        print("  .venv/bin/nbdserve --help     # what else there is")
    return 0


@contextlib.contextmanager
def nbdserve(url: str) -> Iterator[tuple[str, list[str]]]:
    """Run nbdserve; gives the export's URI and the lines of its log, all there after the block."""
    sock = os.path.relpath(FOLDER / "nbd.sock")  # short, whatever the depth of this folder
    say(f"nbdserve --unix {sock} --layer xz http {url}")
    process = subprocess.Popen(
        [*NBDSERVE, "-v", "--unix", sock, "--print-uri", "--layer", "xz", "http", url],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL, text=True,
    )  # fmt: skip
    told: list[str] = []
    reader = threading.Thread(target=listen, args=(process.stderr, told), daemon=True)
    reader.start()
    try:
        uri = (process.stdout.readline() if process.stdout else "").strip()
        if uri:
            yield uri, told
    finally:
        process.terminate()
        process.wait()
        reader.join()
    if not uri:
        raise DemoError((told or ["nbdserve did not start"])[-1].strip())


def listen(log: IO[str], told: list[str]) -> None:
    """Keep each line of a log; pass warnings on at once."""
    for line in log:
        told.append(line)
        if ": warning: " in line:
            print(line, end="", file=sys.stderr)


def copy_back(uri: str, target: Path) -> float:
    """Copy the export by a client of another project; returns seconds."""
    total = int(run("nbdinfo", "--size", uri, stdout=subprocess.PIPE).stdout)
    if total > shutil.disk_usage(FOLDER).free:
        raise DemoError(f"the copy takes {total >> 20} MiB; make room in {FOLDER}")
    say(f"nbdcopy --progress: reading all {total >> 20} MiB back through 4 connections")
    started = time.monotonic()
    run("nbdcopy", "--progress", "--connections=4", uri, target)
    return time.monotonic() - started


def compare(copy: Path, image: Path | None) -> None:
    """Compare checksums, where there is something to compare with."""
    ours = sha256(copy)
    print(f"sha256 of the copy:     {ours}")
    if image is None:
        print("each block agreed with the check that the xz file holds of it (named above)")
        return
    theirs = sha256(image)
    print(f"sha256 of the original: {theirs}")
    if ours != theirs:
        raise DemoError("the copy differs from the original; please report this")


def witnessed(log: Path) -> tuple[int, int, int]:
    """Read requests and bytes off the web server's own log; and the file's size."""
    hits = [line.split("|") for line in log.read_text().splitlines()]
    size = (FOLDER / "web" / "disk.img.xz").stat().st_size
    return len(hits), sum(int(sent) for _, _, sent in hits), size


def cost(told: list[str]) -> tuple[int, int, int]:
    """Read the same off nbdserve's log, since another's web server keeps its own to itself."""
    found = re.search(
        r"http opened [^\n]* size=(\d+)(?s:.*)http closed [^\n]* requests=(\d+) received=(\d+)",
        " ".join(told),
    )  # fmt: skip
    if found is None:
        raise DemoError("nbdserve did not tell what it fetched; please report this")
    size, requests, fetched = map(int, found.groups())
    return requests, fetched, size


def sha256(path: Path) -> str:
    """Digest a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


if __name__ == "__main__":
    sys.exit(main())
