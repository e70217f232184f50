"""The main job, shown whole: a remote xz-compressed image, served over NBD and copied back.

Without an argument it makes an image (partition table, ext4, no root, no loop device), compresses
it into 16 MiB blocks and puts it behind nginx on loopback. With a URL it takes that image.
Everything it makes lies under build/demo and every process it starts is ended.
"""

import contextlib
import hashlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

FOLDER = Path("build/demo").resolve()
SIZE = 256 << 20
START = 2048 * 512  # the first partition, where every partitioning tool puts it
NBDSERVE = [sys.executable, "-m", "nbdserve"]
ENVIRONMENT = {**os.environ, "PATH": f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"}


class DemoError(Exception):
    """What went wrong, one line with the remedy."""


def main() -> int:
    """Run the demo; return the exit status."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    url = sys.argv[1] if len(sys.argv) > 1 else None
    try:
        FOLDER.mkdir(parents=True, exist_ok=True)
        if url is not None:
            return serve_and_copy(url, None, None)
        image = make_image()
        packed = compress(image)
        with web_server(packed.parent) as (base, log):
            return serve_and_copy(f"{base}/{packed.name}", image, log)
    except DemoError as exc:
        print(f"demo: {exc}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("demo: interrupted", file=sys.stderr)
        return 130


def say(text: str) -> None:
    """Announce a step."""
    print(f"\n== {text}", flush=True)


def run(*argv: object, **options: object) -> subprocess.CompletedProcess[str]:
    """Run a command to its end; a failure is one line."""
    words = [str(word) for word in argv]
    try:
        return subprocess.run(words, check=True, text=True, env=ENVIRONMENT, **options)
    except FileNotFoundError:
        raise DemoError(f"{words[0]} is not installed; try: make demo as root") from None
    except subprocess.CalledProcessError as exc:
        told = (exc.stderr or "").strip().splitlines()
        raise DemoError(f"{words[0]} failed: {told[-1] if told else exc}") from None


def make_image() -> Path:
    """Make a partitioned disk with a file system of real files on it, and holes."""
    image = FOLDER / "disk.img"
    if image.exists():
        return image
    say(
        f"making a disk image of {SIZE >> 20} MiB: one partition, ext4, this machine's Python on it"
    )
    tree = FOLDER / "tree"
    shutil.rmtree(tree, ignore_errors=True)
    library = Path(os.__file__).parent
    shutil.copytree(
        library, tree / "python", symlinks=True,
        ignore=shutil.ignore_patterns("site-packages", "dist-packages", "test", "__pycache__"),
    )  # fmt: skip
    (tree / "hello.txt").write_text("This file came over HTTP, out of xz, through NBD.\n")
    fresh = image.with_suffix(".new")
    with fresh.open("wb") as disk:
        disk.truncate(SIZE)
    run("sfdisk", "-q", fresh, input=f"label: dos\nstart={START // 512}, type=83\n")
    run("mke2fs", "-q", "-F", "-t", "ext4", "-L", "demo", "-d", tree, "-E", f"offset={START}",
        fresh, f"{(SIZE - START) // 1024}k", stdin=subprocess.DEVNULL)  # fmt: skip
    shutil.rmtree(tree)
    fresh.rename(image)
    return image


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
    """Serve `url` on a Unix socket, copy it back, and compare."""
    sock = FOLDER / "nbd.sock"
    say(f"nbdserve --unix {os.path.relpath(sock)} --layer xz http {url}")
    process = subprocess.Popen(
        [*NBDSERVE, "-v", "--unix", str(sock), "--print-uri", "--layer", "xz", "http", url],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL, text=True,
    )  # fmt: skip
    told: list[str] = []
    reader = threading.Thread(target=lambda: told.extend(process.stderr or ()), daemon=True)
    reader.start()
    try:
        uri = (process.stdout.readline() if process.stdout else "").strip()
        if not uri:
            process.wait()
            reader.join()
            raise DemoError((told or ["nbdserve did not start"])[-1].strip())
        target = FOLDER / "copy.img"
        size = json.loads(run("nbdinfo", "--json", uri, stdout=subprocess.PIPE).stdout)
        total = size["exports"][0]["export-size"]
        if total > shutil.disk_usage(FOLDER).free:
            raise DemoError(f"the copy takes {total >> 20} MiB; make room in {FOLDER}")
        say(f"nbdcopy --progress: reading all {total >> 20} MiB back through 4 connections")
        started = time.monotonic()
        run("nbdcopy", "--progress", "--connections=4", uri, target)
        seconds = time.monotonic() - started
    finally:
        process.terminate()
        process.wait()
        reader.join()
    report(told, image, target, log, seconds)
    target.unlink()
    print("\nIt works. Type next:\n")
    if image is None:
        print(f"  .venv/bin/nbdserve --layer cow --layer xz http {url} \\")
        print("    --run 'qemu-system-x86_64 -m 1G -drive file=$uri,format=raw,if=virtio'")
    else:
        print("  make test                     # the whole test suite, a guest's boot included")
        print("  .venv/bin/nbdserve --help     # what else there is")
    return 0


def report(
    told: list[str], image: Path | None, copy: Path, log: Path | None, seconds: float
) -> None:
    """Compare checksums; tell what the copy cost."""
    say("comparing")
    ours = sha256(copy)
    print(f"sha256 of the copy:     {ours}")
    if image is not None:
        theirs = sha256(image)
        print(f"sha256 of the original: {theirs}")
        if ours != theirs:
            raise DemoError("the copy differs from the original; please report this")
    else:
        print("every block was verified against the check in the xz file")
    if log is not None:
        hits = [line.split("|") for line in log.read_text().splitlines()]
        requests, fetched = len(hits), sum(int(sent) for _, _, sent in hits)
        size = (FOLDER / "web" / "disk.img.xz").stat().st_size
    else:
        closed = [m for line in told if (m := re.search(r"requests=(\d+) received=(\d+)", line))]
        opened = [m for line in told if (m := re.search(r"http opened .* size=(\d+)", line))]
        requests, fetched = int(closed[-1][1]), int(closed[-1][2])
        size = int(opened[-1][1])
    print(
        f"{requests} HTTP requests, {fetched} bytes fetched of a file of {size} "
        f"({fetched / size:.3f} x), {copy.stat().st_size / 2**20 / seconds:.0f} MiB/s"
    )


def sha256(path: Path) -> str:
    """Digest a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


if __name__ == "__main__":
    sys.exit(main())
