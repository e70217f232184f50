"""The script around a run of virt-customize, wherever that is: what it is fed, what it tells. Pure.

It takes two tar archives from its standard input: what only the user may read, which goes into the
memory of /run, and the operator's files, which may be large. Then it runs virt-customize beside
them. The end of its standard input, whatever the reason, makes it end virt-customize and what that
has started; whichever way it ends itself, both folders are removed. So secrets are in no argument
and no environment, and they leave with a controller that is cut off, interrupted or killed.
"""

import io
import re
import tarfile
from collections.abc import Sequence
from dataclasses import dataclass
from typing import IO, Final

from minicloud.customization.command import Bundle

__all__ = ["Ran", "archives", "header", "is_progress", "parse_end", "step_text", "wrapped"]

_ERRORS: Final = "minicloud: standard error"
_STATUS: Final = "minicloud: status"
_KEPT: Final = 40  # lines of virt-customize's standard error; a failing command's log is in it

_SCRIPT: Final = f"""
exec 3<&0 2>&1
umask 077
private= work= pid= watch=
clean() {{
    trap '' TERM HUP INT PIPE
    if [ -n "$pid" ]; then
        kill -s TERM -- "-$pid"
        turn=0
        while [ $turn -lt 20 ] && kill -s 0 -- "-$pid"; do sleep 0.1; turn=$((turn+1)); done
        kill -s KILL -- "-$pid"
    fi 2>/dev/null
    [ -z "$watch" ] || kill "$watch" 2>/dev/null
    cd /
    rm -rf "$private" "$work"
}}
trap clean EXIT
trap 'exit 143' TERM HUP INT PIPE
for base in "${{XDG_RUNTIME_DIR:-}}" "/run/user/$(id -u)" /run "${{TMPDIR:-/tmp}}"; do
    [ -n "$base" ] && private=$(mktemp -d "$base/minicloud.XXXXXX" 2>/dev/null) && break
done
work=$(mktemp -d "${{TMPDIR:-/var/tmp}}/minicloud.XXXXXX") || exit 1
cd "$private" && ln -s "$work" files && read -r small large <&3 || exit 1
head -c "$small" <&3 | tar -xf - || exit 1
head -c "$large" <&3 | tar -xpf - -C "$work" || exit 1
export LC_ALL=C
export LIBGUESTFS_DEBUG=0 LIBGUESTFS_TRACE=0
export LIBGUESTFS_BACKEND="${{LIBGUESTFS_BACKEND:-direct}}"
export LIBGUESTFS_CACHEDIR="${{LIBGUESTFS_CACHEDIR:-${{TMPDIR:-/var/tmp}}}}"
export LIBGUESTFS_TMPDIR="$work"
[ "$1" = kvm ] || export LIBGUESTFS_BACKEND_SETTINGS="${{LIBGUESTFS_BACKEND_SETTINGS:-force_tcg}}"
shift
umask 022
setsid "$@" </dev/null 2>errors 3<&- &
pid=$!
(read -r _ <&3; kill -s TERM $$) >/dev/null 2>&1 &
watch=$!
wait $pid
status=$?
pid=
echo "{_ERRORS}"
tail -n {_KEPT} errors
echo
echo "{_STATUS} $status"
"""

# after each error: how to report bugs of libguestfs, by words that minicloud does not take
_ADVICE: Final = ("If reporting bugs, run virt-customize", "  virt-customize -v -x")

_PROGRESS = re.compile(r"\[ *\d+\.\d\] (.*)")
_END = re.compile(rf"^{_ERRORS}\n(.*)\n{_STATUS} (\d+)\n$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True, slots=True)
class Ran:
    """What virt-customize did.

    Attributes:
        status: it exited with.
        output: lines of its standard output that are no progress.
        errors: the last lines of its standard error.
    """

    status: int
    output: tuple[str, ...]
    errors: tuple[str, ...]


def wrapped(argv: Sequence[str], *, emulates: bool) -> list[str]:
    """Put the script around a command.

    Args:
        argv: the command; it is run in the folder of the private files.
        emulates: KVM is not to be used.
    """
    return ["sh", "-c", _SCRIPT, "minicloud-customize", "tcg" if emulates else "kvm", *argv]


def archives(made: Bundle, large: IO[bytes]) -> bytes:
    """Pack what a run needs: the private files are returned, the operator's go to a file.

    Raises:
        OSError: one of those cannot be read.
    """
    small = io.BytesIO()
    with (
        tarfile.open(fileobj=small, mode="w") as private,
        tarfile.open(fileobj=large, mode="w") as work,
    ):
        _put(private, "commands", made.text.encode())
        for one in made.staged:
            if isinstance(one.file, bytes):
                _put(private, one.name, one.file)
            else:
                work.add(one.file, one.name.removeprefix("files/"), recursive=True)
    return small.getvalue()


def header(small: int, large: int) -> bytes:
    """Say how long the archives are, which follow."""
    return f"{small} {large}\n".encode()


def is_progress(line: str) -> bool:
    """Tell whether a line of its standard output says how far it is."""
    return _PROGRESS.fullmatch(line) is not None


def step_text(line: str) -> str:
    """Take the time off a line of progress."""
    match = _PROGRESS.fullmatch(line)
    return line if match is None else match[1]


def parse_end(text: str) -> Ran | None:
    """Read all that was told; None where it does not come to an end."""
    match = _END.search(text)
    if match is None:
        return None
    output = [line for line in text[: match.start()].splitlines() if not is_progress(line)]
    errors = [line for line in match[1].splitlines() if line and not line.startswith(_ADVICE)]
    return Ran(int(match[2]), tuple(output), tuple(errors))


def _put(archive: tarfile.TarFile, name: str, content: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(content)
    member.mode = 0o600
    archive.addfile(member, io.BytesIO(content))
