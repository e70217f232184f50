import pytest

from minicloud.ssh.connecting import Connector
from sshnodes import Faults, Home, serving


@pytest.fixture
def home(tmp_path):
    return Home(tmp_path)


@pytest.fixture
def faults(tmp_path):
    """A node without libvirt's tools, which a test may put into the folder `bin`."""
    (tmp_path / "bin").mkdir()
    for tool in ("sh", "readlink", "grep", "id", "cat", "env"):
        (tmp_path / "bin" / tool).symlink_to(f"/usr/bin/{tool}")
    return Faults(path=str(tmp_path / "bin"))


@pytest.fixture
async def node(home, faults):
    async with serving(faults) as port:
        yield home.node(port, libvirt_socket=str(home.folder / "libvirt"))


@pytest.fixture
async def session(home, node):
    connector = Connector(ssh_config=home.config, keys=home.keys)
    session = await connector.connect(node)
    yield session
    await session.close()
