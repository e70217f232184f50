"""Executable templates: real scripts are asked; a bad one is told with its name and question."""

import asyncio
import os
import re
import select
from pathlib import Path

import pytest

from minicloud.errors import UsageError
from minicloud.inventory.reading import read_inventory
from minicloud.inventory.scripts import QUESTIONS, scripts_of, template, template_names
from minicloud.model.inventory import Bus, Template

WHOLE = """\
#!/bin/sh
case "$1" in
    probe) echo hello ;;
    base-image) echo https://one.example/f.raw.xz; echo https://two.example/f.raw.xz ;;
    layers) echo cache:size=64M; echo xz ;;
    sha256) printf %064d 7 ;;
    sha512) printf %0128d 7 ;;
    size) echo 20G ;;
    minimum-size) echo 10G ;;
    recommended-memory) echo 2G ;;
    minimum-memory) echo 1G ;;
    vcpus) echo 2 ;;
    disk-bus) echo scsi ;;
    network) echo bridge:br0 ;;
    network-model) echo e1000 ;;
    cpu) echo host-model ;;
    customize) echo "install nginx"; echo; echo "run setup.sh" ;;
    user-data) echo seed.yaml ;;
    kernel) echo /boot/vmlinuz ;;
    initrd) ;;
    cmdline) echo "console=ttyS0 quiet" ;;
    *) exit 2 ;;
esac
"""
LEAST = "probe) echo hello ;; base-image) echo /t ;;"


@pytest.fixture
def folder(tmp_path):
    path = tmp_path / "templates"
    path.mkdir()
    return path


@pytest.fixture
def inventory(tmp_path):
    """Read an inventory with one template of its own, beside the folder of scripts."""
    path = tmp_path / "minicloud.toml"
    path.write_text('[defaults]\nmemory = "3G"\n[templates.own]\nimage = "/own"\n')
    return read_inventory(path)


@pytest.fixture
def script(folder):
    """Write a script: `script(cases, name)`; cases of a shell's `case`, or a whole text."""

    def write(text, name="t", mode=0o755):
        if not text.startswith("#!"):
            text = f'#!/bin/sh\ncase "$1" in {text} *) exit 2 ;; esac\n'
        path = folder / f"{name}.template"
        path.write_text(text)
        path.chmod(mode)
        return path

    return write


async def refused(inventory, **how):
    with pytest.raises(UsageError) as caught:
        await template(inventory, "t", **how)
    return caught.value


async def test_all_answers_become_a_template(inventory, script, folder):
    script(WHOLE, "fedora")
    assert await template(inventory, "fedora") == Template(
        name="fedora",
        image=("https://one.example/f.raw.xz", "https://two.example/f.raw.xz"),
        layers=("cache:size=64M", "xz"),
        sha256=f"{7:064}",
        sha512=f"{7:0128}",
        size=20 << 30,
        minimum_size=10 << 30,
        memory=2 << 30,
        minimum_memory=1 << 30,
        vcpus=2,
        bus=Bus.SCSI,
        network="bridge:br0",
        network_model="e1000",
        cpu="host-model",
        customize=(("install", "nginx"), ("run", f"{folder}/setup.sh")),
        user_data=folder / "seed.yaml",
        kernel="/boot/vmlinuz",
        cmdline="console=ttyS0 quiet",
    )


async def test_what_a_script_does_not_know_comes_from_the_defaults(inventory, script, folder):
    script("probe) echo hello ;; base-image) echo t.raw.xz ;;")
    assert await template(inventory, "t") == Template(
        name="t",
        image=(f"{folder}/t.raw.xz",),
        layers=("xz",),
        memory=3 << 30,
        vcpus=1,
        bus=Bus.VIRTIO,
        network="network:default",
    )


async def test_memory_counts_before_what_is_recommended(inventory, script):
    script(LEAST + "recommended-memory) echo 2G ;; memory) echo 4G ;;")
    assert (await template(inventory, "t")).memory == 4 << 30


async def test_no_layers_is_an_answer(inventory, script):
    script("probe) echo hello ;; base-image) echo t.raw.xz ;; layers) ;;")
    assert (await template(inventory, "t")).layers == ()


async def test_the_inventorys_own_comes_first_and_runs_nothing(inventory, script):
    script("*) exit 1 ;;", "own")
    assert await template(inventory, "own") is inventory.templates["own"]


def test_names_come_from_everywhere_and_nothing_is_run(
    inventory, script, folder, tmp_path, monkeypatch
):
    ran = tmp_path / "ran"
    first = script(f"*) touch {ran} ;;", "b")
    script(f"*) touch {ran} ;;", "a")
    script("*) ;;", "not a name")
    (folder / "d.template").mkdir()
    (folder / "e.templates").touch()
    elsewhere = tmp_path / "else"
    elsewhere.mkdir()
    (elsewhere / "b.template").touch()
    (elsewhere / "c.template").touch()
    monkeypatch.setenv("MINICLOUD_PATH", f":/no/such/folder:{elsewhere}")
    assert template_names(inventory) == ["own", "a", "b", "c"]
    assert scripts_of(inventory)["b"] == first
    assert not ran.exists()


async def test_a_name_nobody_has_is_told_with_the_nearest(inventory, script):
    script(LEAST, "fedora")
    with pytest.raises(UsageError, match=r"no template .* 'fedor'; did you mean 'fedora'\?"):
        await template(inventory, "fedor")


@pytest.mark.parametrize(
    ("cases", "key", "part"),
    [
        ("probe) echo hi ;;", "probe", "must print hello, as a template does ('hi')"),
        ("", "probe", "it does not know the question"),
        ("probe) echo hello ;;", "base-image", "must be known"),
        ("probe) echo hello ;; base-image) ;;", "base-image", "must be known"),
        ("probe) echo hello ;; base-image) echo ftp://x ;;", "base-image", "http:// or https://"),
        (LEAST + "disk-bus) echo usb ;;", "disk-bus", "one of virtio"),
        (LEAST + "layers) echo xzz ;;", "layers", "did you mean 'xz'?"),
        (LEAST + "vcpus) echo on fire >&2; exit 3 ;;", "vcpus", "ended with status 3: on fire"),
        (LEAST + "vcpus) exit 1 ;;", "vcpus", "ended with status 1"),
        (LEAST + "vcpus) kill -9 $$ ;;", "vcpus", "was ended by signal 9"),
        (LEAST + "vcpus) printf '\\377' ;;", "vcpus", "no UTF-8"),
        (LEAST + "vcpus) yes ;;", "vcpus", "prints more than 65536 bytes"),
        (LEAST + "size) echo 1 ;; minimum-size) echo 2 ;;", "size", "less than minimum-size"),
    ],
)
async def test_a_bad_answer_names_script_and_question(inventory, script, cases, key, part):
    path = script(cases)
    error = await refused(inventory)
    assert (error.file, error.key) == (path, key)
    assert part in str(error)


async def test_all_bad_answers_are_counted(inventory, script):
    script(LEAST + "vcpus) echo x ;; disk-bus) echo x ;;")
    assert "(and 1 more)" in str(await refused(inventory))


async def test_what_cannot_be_run_is_told_with_the_remedy(inventory, script):
    script(LEAST, mode=0o644)
    assert "cannot be run: Permission denied; chmod +x it" in str(await refused(inventory))
    script("#!/no/such/shell\n")
    assert "cannot be run: No such file" in str(await refused(inventory))


async def test_a_script_that_hangs_is_told(inventory, script):
    script("probe) sleep 1000 ;;")
    assert "gave no answers within 0.2 s" in str(await refused(inventory, deadline=0.2))


@pytest.mark.parametrize(
    "cases",
    [
        "probe) echo $$ >{}; sleep 1000 ;;",
        "probe) sleep 1000 & echo $! >{}; wait ;;",
        "probe) echo hello; sleep 1000 & echo $! >{} ;;",
    ],
    ids=["script", "child", "child-that-holds-the-output"],
)
async def test_nothing_goes_on_when_the_asker_is_cancelled(inventory, script, tmp_path, cases):
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    script(cases.format(fifo))
    asked = asyncio.create_task(template(inventory, "t", deadline=1000))
    pid = int(await asyncio.to_thread(fifo.read_text))
    asked.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asked
    assert is_gone(pid)


def is_gone(pid):
    """Wait for a process that is being killed to end, at most 10 s; a zombie has ended."""
    try:
        handle = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        return bool(select.select([handle], [], [], 10)[0])
    finally:
        os.close(handle)


async def test_the_one_in_the_how_to_is_a_template(inventory, script):
    page = Path(__file__).parents[4] / "docs" / "how-to" / "write-an-inventory.md"
    (text,) = re.findall(r"```sh\n(#!/bin/sh\n.*?)```", page.read_text(), re.DOTALL)
    script(text)
    found = await template(inventory, "t")
    assert found.layers == ("xz",)
    assert found.customize == (("install", "nginx"), ("update", ""))


def test_every_key_of_a_template_can_be_asked_for():
    from minicloud.inventory.keys import TEMPLATE_KEYS

    assert set(QUESTIONS.values()) == set(TEMPLATE_KEYS)
