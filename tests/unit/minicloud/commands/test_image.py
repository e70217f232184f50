"""`minicloud image`, on real files and a real web server."""

import argparse
import asyncio
import hashlib
import lzma
import os
from dataclasses import dataclass, field

import pytest

from minicloud.cluster import Cluster, Patience
from minicloud.commands import image
from minicloud.errors import UsageError
from minicloud.inventory.reading import read_inventory
from minicloud.model.inventory import Inventory
from sshnodes import Faults, Home, free_port, serving
from webserver import silent, status, webserver

DATA = os.urandom(1 << 20)


@dataclass
class Watching:
    """Keeps what it is told."""

    steps: list[str] = field(default_factory=list)
    done: int = 0

    def step(self, text):
        self.steps.append(text)

    def progress(self, done, total, unit="B"):
        self.done = done


@dataclass
class Context:
    inventory: Inventory
    cluster: Cluster
    report: Watching = field(default_factory=Watching)
    timeout: float | None = None


@pytest.fixture
def home(tmp_path):
    return Home(tmp_path)


@pytest.fixture
async def context(home):
    """Make a context of an inventory: `context(text)`."""
    clusters = []

    def make(text, timeout=None):
        path = home.folder / "minicloud.toml"
        path.write_text(text)
        inventory = read_inventory(path, ssh_config=home.config)
        clusters.append(Cluster(inventory, Patience(), home.keys))
        return Context(inventory, clusters[-1], timeout=timeout)

    yield make
    for cluster in clusters:
        await cluster.close()


async def run(context, line):
    parser = argparse.ArgumentParser()
    image.add_arguments(parser)
    return await image.run(context, parser.parse_args(line.split()))


def script(tmp_path, cases):
    path = tmp_path / "templates" / "made.template"
    path.parent.mkdir()
    path.write_text(f'#!/bin/sh\ncase "$1" in {cases} *) exit 2 ;; esac\n')
    path.chmod(0o755)
    return path


async def test_the_catalogue_lists_tables_and_scripts(context, tmp_path):
    path = script(tmp_path, "probe) echo hello ;; base-image) echo /made.xz ;;")
    outcome = await run(
        context(
            '[templates.a]\nimage = ["http://x/a.xz", "http://y/a.xz", "http://z/a.xz"]\n'
            f'size = "20G"\nmemory = "1.5G"\nsha512 = "{"0" * 128}"\n'
        ),
        "list",
    )
    (table,) = outcome.views
    assert table.columns == ("template", "image", "layers", "size", "memory", "vcpus", "checksum")
    assert table.rows == [
        ("a", "http://x/a.xz (+2 mirrors)", "xz", "20.0G", "1.5G", "1", "sha512"),
        ("made", "/made.xz", "xz", "-", "1.0G", "1", "none"),
    ]
    assert outcome.status == 0
    assert [found["script"] for found in outcome.document["templates"]] == [None, str(path)]


async def test_the_credentials_of_an_image_are_not_shown(context):
    made = context('[templates.a]\nimage = "http://me:secret@127.0.0.1:9/a.xz?sig=secret"')
    for line in ("list", "check"):
        assert "secret" not in repr(await run(made, line))


async def test_a_script_that_fails_is_a_row_and_an_error(context, tmp_path):
    path = script(tmp_path, "probe) echo oh dear >&2; exit 1 ;;")
    outcome = await run(context('[templates.a]\nimage = "/a"'), "list")
    assert outcome.views[0].rows[1] == ("made", *["-"] * 6)
    assert outcome.errors == [f"made: {path}: probe: ended with status 1: oh dear"]
    assert outcome.status == 1


async def test_an_empty_catalogue_is_no_error(context):
    outcome = await run(context(""), "list --long")
    assert (outcome.status, outcome.views[0].rows) == (0, [])


async def test_names_choose_and_are_corrected(context):
    made = context('[templates.a]\nimage = "/a"\n[templates.b]\nimage = "/b"')
    outcome = await run(made, "list b")
    assert [row[0] for row in outcome.views[0].rows] == ["b"]
    with pytest.raises(UsageError, match="no template is called 'c'; known: a, b"):
        await run(made, "list c")


@pytest.mark.parametrize("line", ["check --long", "list --quick"])
async def test_an_option_of_the_other_action_is_refused(context, line):
    with pytest.raises(UsageError):
        await run(context(""), line)


async def test_the_long_list_asks_the_servers_in_vain_or_not(context):
    packed = lzma.compress(DATA, preset=0)
    async with webserver(packed) as server:
        made = context(
            f'[templates.a]\nimage = "{server.url("a.xz")}"\n[templates.b]\nimage = "/no/such"\n'
        )
        outcome = await run(made, "list --long")
        assert server.sent < len(packed)
    (table,) = outcome.views
    assert table.columns[-3:] == ("file", "format", "disk")
    assert table.rows[0][-2:] == ("xz", "1M")
    assert table.rows[1][-3:] == ("-", "-", "-")
    assert outcome.status == 1
    assert outcome.document["templates"][0]["images"][0]["found"]["disk"] == 1 << 20


async def test_a_good_image_is_read_to_its_end(context, tmp_path):
    (tmp_path / "a.raw").write_bytes(DATA)
    sums = {name: hashlib.new(name, DATA).hexdigest() for name in ("sha256", "sha512")}
    text = "".join(f'{name} = "{value}"\n' for name, value in sums.items())
    made = context(f'[templates.a]\nimage = "a.raw"\n{text}')
    outcome = await run(made, "check")
    (row,) = outcome.views[0].rows
    assert row == (
        "a", f"{tmp_path}/a.raw", "1M", "raw", "1M", "-", "sha256 sha512 ok", "ok"
    )  # fmt: skip
    assert (outcome.status, outcome.errors) == (0, [])
    assert made.report.done == len(DATA)
    assert outcome.document["images"][0]["found"]["checksums"] == sums


async def test_a_mirror_that_differs_is_told_with_both_sums(context):
    right = hashlib.sha256(DATA).hexdigest()
    other = DATA[::-1]
    async with webserver(DATA) as good, webserver(other) as bad:
        outcome = await run(
            context(f'[templates.a]\nimage = ["{good.url()}", "{bad.url()}"]\nsha256 = "{right}"'),
            "check",
        )
    assert [row[-2:] for row in outcome.views[0].rows] == [
        ("sha256 ok", "ok"),
        ("sha256 DIFFERS", "wrong"),
    ]
    (line,) = outcome.errors
    assert f"its sha256 is {hashlib.sha256(other).hexdigest()}, not {right}" in line
    assert bad.url() in line
    assert outcome.status == 1


async def test_nothing_right_is_status_2(context):
    async with webserver(b"", always=status("404 Not Found")) as server:
        outcome = await run(context(f'[templates.a]\nimage = "{server.url()}"'), "check")
    assert outcome.status == 2
    assert outcome.views[0].rows[0][-1] == "wrong"
    assert outcome.document["errors"][0]["reason"] == "unreachable"


async def test_a_quick_check_does_not_read_it(context):
    async with webserver(DATA) as server:
        made = context(f'[templates.a]\nimage = "{server.url()}"\nsha256 = "{"0" * 64}"')
        outcome = await run(made, "check --quick")
        assert server.sent < len(DATA)
    assert outcome.views[0].rows[0][-2:] == ("sha256 not read", "ok")


async def test_an_image_without_a_checksum_is_not_read(context):
    async with webserver(DATA) as server:
        outcome = await run(context(f'[templates.a]\nimage = "{server.url()}"'), "check")
        assert server.sent < len(DATA)
    assert outcome.views[0].rows[0][-2:] == ("none", "ok")


async def test_large_blocks_make_it_slow_and_have_a_remedy(context, tmp_path):
    (tmp_path / "a.raw.xz").write_bytes(lzma.compress(bytes(20 << 20), preset=0))
    outcome = await run(context('[templates.a]\nimage = "a.raw.xz"'), "check")
    row = outcome.views[0].rows[0]
    assert (row[5], row[-1]) == ("1, up to 20 MiB", "slow")
    assert outcome.status == 0
    assert "compress it anew: nbdctl pack" in outcome.errors[0]


async def test_what_is_wrong_with_the_template_is_told_once(context):
    async with webserver(DATA) as server:
        outcome = await run(
            context(
                f'[templates.a]\nimage = ["{server.url()}", "{server.url("b")}"]\n'
                'layers = ["cache:sise=1M"]\nuser-data = "no.yaml"\n'
            ),
            "check",
        )
    layers, seed = outcome.errors
    assert "templates.a: layers:" in layers
    assert "user-data: there is no file" in seed


def far(home, port):
    return (
        f'[nbd]\naddress = "x"\nssh = {{ host = "127.0.0.1", port = {port}, key = "{home.key}" }}\n'
    )


async def test_an_image_is_looked_at_on_the_machine_of_the_exports(context, home, tmp_path):
    packed = lzma.compress(DATA, preset=0)
    path = tmp_path / "it's.raw.xz"
    path.write_bytes(packed)
    right = hashlib.sha512(packed).hexdigest()
    faults = Faults()
    async with serving(faults) as port:
        made = context(f'{far(home, port)}[templates.a]\nimage = "{path}"\nsha512 = "{right}"')
        outcome = await run(made, "check")
        quick = await run(made, "check --quick")
    (row,) = outcome.views[0].rows
    assert row[1] == f"127.0.0.1:{path}"
    assert row[3:] == ("xz", "1M", "1, up to 1 MiB", "sha512 ok", "ok")
    assert quick.views[0].rows[0][-2:] == ("sha512 not read", "ok")
    assert sum("sha512sum" in command for command in faults.commands) == 1
    assert outcome.document["images"][0]["machine"] == "127.0.0.1"


async def test_an_image_that_is_not_there_is_told_by_that_machine(context, home):
    async with serving() as port:
        made = context(f'{far(home, port)}[templates.a]\nimage = "/no/such.raw"')
        outcome = await run(made, "check")
    (line,) = outcome.errors
    assert line.startswith("a: 127.0.0.1:/no/such.raw: stat: cannot stat")
    assert outcome.status == 2


async def test_every_node_with_an_nbdserve_of_its_own_is_asked(context, home, tmp_path):
    (tmp_path / "a.raw").write_bytes(DATA)
    login = f'host = "127.0.0.1"\nkey = "{home.key}"\nport ='
    async with serving() as port:
        made = context(
            f"[nodes.on]\n{login} {port}\n[nodes.off]\n{login} {free_port()}\n"
            f'[nbd]\nsocket = "/run/nbd.sock"\n[templates.a]\nimage = "{tmp_path}/a.raw"'
        )
        outcome = await run(made, "check")
    on, off = outcome.views[0].rows
    assert (on[1], on[-1]) == (f"on:{tmp_path}/a.raw", "ok")
    assert (off[1], off[-1]) == (f"off:{tmp_path}/a.raw", "wrong")
    assert outcome.document["errors"][0]["reason"] == "refused"
    assert outcome.status == 1


async def test_what_is_not_done_in_time_is_told(context):
    async with webserver(DATA, always=silent) as server:
        made = context(f'[templates.b]\nimage = "{server.url()}"', timeout=0.1)
        outcome = await run(made, "check")
    assert outcome.views[0].rows[0][-1] == "wrong"
    assert "not done within 0.1 s; give it more: --timeout" in outcome.errors[0]
    assert outcome.document["errors"][0]["reason"] == "deadline"
    assert outcome.status == 2


async def test_a_check_that_is_cancelled_leaves_nothing_behind(context):
    asked = asyncio.Event()

    def never(server, request):
        asked.set()
        return silent(server, request)

    async with webserver(DATA, always=never) as server:
        made = context(f'[templates.b]\nimage = "{server.url()}"')
        before = asyncio.all_tasks()
        task = asyncio.create_task(run(made, "check"))
        await asked.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert asyncio.all_tasks() - before == server._tasks
