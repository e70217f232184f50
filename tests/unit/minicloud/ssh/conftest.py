import pytest

from minicloud.ssh.connecting import Connector
from sshnodes import Home


@pytest.fixture
def home(tmp_path):
    return Home(tmp_path)


@pytest.fixture
def connector(home):
    return Connector(ssh_config=home.config, keys=home.keys, connect=2, login=5)
