"""A run of virt-customize, on this machine and on a node, by a program that notes how it is called.

Each test is made on both: the script around it is the same.
"""

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from minicloud.booting.virttype import Known, KvmFacts
from minicloud.customization import places
from minicloud.customization.command import Command, bundle
from minicloud.customization.places import place_here, place_there
from minicloud.customization.running import run
from minicloud.customization.tool import Tool
from minicloud.domain.plan import TcpServer
from minicloud.errors import NodeError, Reason, UsageError
from minicloud.model.inventory import Node, VirtType

SECRET = "hunter2-zebra"  # nothing else in this process is called like this
ARGV = ["virt-customize", "--format", "raw", "-a", "nbd://x/y", "--commands-from-file", "commands"]


@pytest.fixture(params=["here", "there"])
async def place(request, fake, here, cluster, exports):
    server = TcpServer("127.0.0.1", exports)
    if request.param == "here":
        here(fake)
        return await place_here(server)
    made = await cluster(fake)
    return await place_there(await made.session("ham0"), server)


@pytest.fixture
def commands(tmp_path):
    """Name a folder and a script of the operator's, and a secret."""
    site = tmp_path / "site"
    site.mkdir()
    site.joinpath("index.html").write_bytes(os.urandom(300_000))
    script = tmp_path / "setup.sh"
    script.write_text("#!/bin/sh\n")
    script.chmod(0o751)
    return [
        Command("root-password", "file:", f"{SECRET}\n".encode()),
        Command("upload", file=script, after=":/opt/"),
        Command("copy-in", file=site, after=":/var/www"),
    ]


def is_gone(run):
    """Tell whether nothing of a run is left."""
    return not run.folder.exists() and not Path(run.environment["LIBGUESTFS_TMPDIR"]).exists()


def alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


async def test_it_is_fed_what_it_needs_and_nobody_else_may_read_it(place, fake, commands, tmp_path):
    ran = await run(place, ARGV, bundle(commands), lambda _: None)
    (seen,) = fake.runs
    assert (ran.status, seen.argv) == (0, ARGV[1:])
    assert seen.commands == bundle(commands).text
    assert seen.seen("secrets/0") == f"{SECRET}\n".encode()
    assert seen.seen("files/1/setup.sh") == b"#!/bin/sh\n"
    assert seen.seen("files/2/site/index.html") == (tmp_path / "site/index.html").read_bytes()
    assert {seen.modes["./commands"], seen.modes["./secrets/0"]} == {"600"}
    assert seen.modes["./secrets"] == "700"
    work = Path(seen.environment["LIBGUESTFS_TMPDIR"])
    assert seen.path.joinpath("seen/files/1/setup.sh").stat().st_mode & 0o777 == 0o751
    assert work != seen.folder


async def test_no_process_has_a_secret_in_its_arguments_or_environment(place, fake, commands):
    await run(place, ARGV, bundle(commands), lambda _: None)
    processes = fake.runs[0].processes
    assert "commands-from-file" in processes
    assert SECRET not in processes


async def test_nothing_is_left_of_it(place, fake, commands):
    await run(place, ARGV, bundle(commands), lambda _: None)
    assert is_gone(fake.runs[0])


async def test_its_environment_is_that_of_a_run_without_kvm_and_libvirt(place, fake, commands):
    await run(place, ARGV, bundle(commands), lambda _: None)
    environment = fake.runs[0].environment
    assert environment["LIBGUESTFS_BACKEND"] == "direct"
    assert environment["LIBGUESTFS_TRACE"] == "0"  # a trace would print what is secret
    forced = environment.get("LIBGUESTFS_BACKEND_SETTINGS") == "force_tcg"
    assert forced is place.emulates
    # in a folder of its own the appliance would be built anew each time
    assert environment["LIBGUESTFS_CACHEDIR"] != environment["LIBGUESTFS_TMPDIR"]


async def test_its_progress_is_told_while_it_runs(place, fake, commands):
    fake.tell(output="virt-customize: Setting random password of root to x\n")
    steps = []
    ran = await run(place, ARGV, bundle(commands), steps.append)
    assert steps == ["Examining the guest ...", "Setting a random seed", "Finishing off"]
    assert ran.output == ("virt-customize: Setting random password of root to x",)


async def test_a_failure_has_its_status_and_last_words(place, fake, commands):
    errors = [f"line {number}" for number in range(60)]
    advice = ["If reporting bugs, run virt-customize with …:", "  virt-customize -v -x [...]"]
    fake.tell(status="3\n", errors="\n".join([*errors, *advice]))
    ran = await run(place, ARGV, bundle(commands), lambda _: None)
    assert (ran.status, ran.errors) == (3, tuple(errors[-38:]))
    assert is_gone(fake.runs[0])


async def hung(place, made):
    """Begin a run that hangs; returns its task and the process that hangs in it."""
    hangs = asyncio.get_running_loop().create_future()

    def on_step(text):
        if text.startswith("hanging"):
            hangs.set_result(int(text.split()[-1]))

    task = asyncio.create_task(run(place, ARGV, made, on_step))
    return task, await hangs


async def ended(pid):
    """Wait for the end of a process that is not ours."""
    loop = asyncio.get_running_loop()
    with contextlib.suppress(ProcessLookupError):
        descriptor = os.pidfd_open(pid)
        is_over = asyncio.Event()
        loop.add_reader(descriptor, is_over.set)
        async with asyncio.timeout(60):  # else it would never end
            await is_over.wait()
        loop.remove_reader(descriptor)
        os.close(descriptor)


async def test_a_cancelled_run_ends_with_all_it_has_started(place, fake, commands):
    fake.tell(hang="")
    task, child = await hung(place, bundle(commands))
    assert alive(child)
    assert fake.runs[0].folder.joinpath("secrets/0").exists()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not alive(child)
    assert is_gone(fake.runs[0])


async def test_a_file_that_went_is_told(place, fake, commands, tmp_path):
    tmp_path.joinpath("setup.sh").unlink()
    with pytest.raises(UsageError, match=r"setup.sh cannot be read: No such file"):
        await run(place, ARGV, bundle(commands), lambda _: None)
    assert fake.runs == []


async def test_a_machine_that_cannot_keep_the_files_says_so(place, tools, commands):
    tools.joinpath("tar").unlink()
    with pytest.raises(NodeError, match=r"broke off: .*tar.*not found"):
        await run(place, ARGV, bundle(commands), lambda _: None)


async def test_a_node_that_is_lost_is_told(fake, cluster, exports, commands):
    fake.tell(hang="")
    made = await cluster(fake)
    session = await made.session("ham0")
    place = await place_there(session, TcpServer("127.0.0.1", exports))
    task, child = await hung(place, bundle(commands))
    session.cut()
    with pytest.raises(NodeError) as caught:
        await task
    await ended(child)
    await ended(fake.runs[0].parent)
    assert is_gone(fake.runs[0])
    assert caught.value.reason is Reason.SSH_LOST


@pytest.mark.parametrize(
    ("virt_type", "may_work", "shown", "emulates"),
    [
        (VirtType.KVM, False, None, False),  # the inventory knows better
        (VirtType.QEMU, True, None, True),
        (VirtType.AUTO, True, None, False),
        (VirtType.AUTO, False, None, True),
        (VirtType.AUTO, True, VirtType.QEMU, True),  # `boot` has tried a guest there
        (VirtType.AUTO, True, VirtType.KVM, False),
    ],
)
def test_where_kvm_is_used(virt_type, may_work, shown, emulates):
    node = Node(name="ham1", host="ham1", virt_type=virt_type)
    if shown is not None:
        Known().write("ham1", "this-boot", shown)
    kvm = KvmFacts("this-boot", "x86_64", may_work)
    assert places._emulates(node, Tool("1", frozenset(), kvm)) is emulates


KILLED = """
import asyncio
from minicloud.customization.command import Command, bundle
from minicloud.customization.places import place_here
from minicloud.customization.running import run
from minicloud.domain.plan import TcpServer

async def main():
    place = await place_here(TcpServer("127.0.0.1", {port}))
    made = bundle([Command("root-password", "file:", b"secret")])
    await run(place, {argv}, made, lambda text: print(text, flush=True))

asyncio.run(main())
"""


async def test_a_killed_minicloud_leaves_nothing_either(fake, here, exports):
    here(fake)
    fake.tell(hang="")
    code = KILLED.format(port=exports, argv=ARGV)
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", code, stdout=subprocess.PIPE
    )
    while not (line := await process.stdout.readline()).startswith(b"hanging"):
        assert line
    process.send_signal(signal.SIGKILL)
    await process.wait()
    await ended(int(line.split()[-1]))
    await ended(fake.runs[0].parent)
    assert is_gone(fake.runs[0])
