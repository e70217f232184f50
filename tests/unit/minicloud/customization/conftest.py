import pytest

from minicloud.cluster import Cluster, Patience
from sshnodes import Faults, Home, serving
from virtcustomize import VirtCustomize, greeting, toolbox


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """Know nothing of what real nodes have shown."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def home(tmp_path):
    return Home(tmp_path)


@pytest.fixture
def tools(tmp_path):
    """Return a PATH without virt-customize."""
    return toolbox(tmp_path / "tools")


@pytest.fixture
def fake(tmp_path):
    return VirtCustomize(tmp_path / "fake")


@pytest.fixture
def here(tmp_path, tools, monkeypatch):
    """Make this machine one without virt-customize; `here(fake)` gives it one."""
    for name in ("private", "large"):
        tmp_path.joinpath(name).mkdir()
    monkeypatch.setenv("PATH", str(tools))
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "private"))
    monkeypatch.setenv("TMPDIR", str(tmp_path / "large"))
    for name in ("LIBGUESTFS_BACKEND", "LIBGUESTFS_BACKEND_SETTINGS", "LIBGUESTFS_CACHEDIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("LIBGUESTFS_TRACE", "1")

    def install(fake):
        monkeypatch.setenv("PATH", f"{fake.bin}:{tools}")

    return install


@pytest.fixture
async def exports():
    """Serve a greeting; gives its port."""
    async with greeting() as port:
        yield port


@pytest.fixture
async def cluster(home, tools):
    """Make a cluster of nodes, each with the virt-customize it is given or None."""
    nodes, stack = [], []

    async def make(*fakes, **more):
        for number, fake in enumerate(fakes):
            path = str(tools) if fake is None else f"{fake.bin}:{tools}"
            server = serving(Faults(path=path))
            port = await server.__aenter__()
            stack.append(server)
            nodes.append(home.node(port, f"ham{number}", **more))
        made = Cluster(home.inventory(*nodes), Patience(connect=2), home.keys)
        stack.append(made)
        return made

    yield make
    for one in reversed(stack):
        await one.__aexit__(None, None, None)
