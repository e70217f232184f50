"""The example of docs/examples: installed as a third party would, run by the real command."""

import contextlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

from daemon import run_nbdserve
from nbdserve.device import NoParams
from nbdserve.sources.memory import MemoryParams, MemorySource
from nbdserve.testing.conformance import DeviceConformance, Subject
from tools import ENVIRONMENT

EXAMPLE = Path(__file__).parents[2] / "docs" / "examples" / "nbdserve-rot13"


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """The environment in which the example is installed."""
    folder = tmp_path_factory.mktemp("site")
    source = tmp_path_factory.mktemp("source") / "example"
    subprocess.run(["cp", "-r", EXAMPLE, source], check=True)  # building writes beside it
    subprocess.run(
        [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", folder, source],
        check=True, stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    return {**ENVIRONMENT, "PYTHONPATH": f"{folder}:{os.environ.get('PYTHONPATH', '')}"}


def test_a_source_and_a_layer_of_a_third_party_are_served(installed):
    script = 'nbdsh -u "$uri" -c "import sys; sys.stdout.buffer.write(h.pread(8, 24))"'
    done = run_nbdserve("--layer", "rot13", "alphabet", "1M", "--run", script, env=installed)
    assert done.stdout == "lmnopqrs", done.stderr


def test_its_keys_are_checked_and_its_help_is_shown(installed):
    done = run_nbdserve("alphabet", "1M", "leters=x", env=installed)
    assert done.returncode == 2
    assert "did you mean 'letters'" in done.stderr
    page = run_nbdserve("--help", "alphabet", env=installed).stdout
    assert "A read-only disk of letters." in page


@pytest.mark.parametrize("size", [0, 1, 150_003])
class TestRot13(DeviceConformance):
    """The example's layer keeps the contract, by the suite that is public for such as it."""

    @pytest.fixture
    def open_subject(self, size, monkeypatch):
        monkeypatch.syspath_prepend(EXAMPLE / "src")
        from nbdserve_rot13.rot13 import Rot13Layer

        @contextlib.asynccontextmanager
        async def opened():
            inner = MemorySource(MemoryParams(size=size))
            yield Subject(Rot13Layer(inner, NoParams()), contents=bytes(size))

        return opened
