"""The systemd units: verified and rated by systemd's own tools, and run with what they set."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

UNITS = Path(__file__).parents[3] / "systemd"
SERVICES = ["nbdserve.service", "nbdserve@.service"]


@pytest.fixture
def root(tmp_path):
    """A file system root with our units, a stand-in for the command, and systemd's own units."""
    for folder in ("etc/systemd/system", "usr/bin", "usr/lib/systemd/system"):
        (tmp_path / folder).mkdir(parents=True)
    for unit in UNITS.iterdir():
        shutil.copy(unit, tmp_path / "etc/systemd/system")
    shutil.copy(
        tmp_path / "etc/systemd/system/nbdserve@.service",
        tmp_path / "etc/systemd/system/nbdserve@images.service",
    )
    for unit in Path("/usr/lib/systemd/system").glob("*.target"):
        shutil.copy(unit, tmp_path / "usr/lib/systemd/system", follow_symlinks=True)
    shutil.copy("/bin/true", tmp_path / "usr/bin/nbdserve")
    return tmp_path


@pytest.mark.parametrize("unit", ["nbdserve.socket", "nbdserve.service", "nbdserve@images.service"])
def test_systemd_analyze_verify_finds_nothing(root, unit):
    done = subprocess.run(
        ["systemd-analyze", "verify", "--root", root, "--man=no", unit],
        capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    ours = [line for line in done.stderr.splitlines() if "nbdserve" in line]
    assert ours == []
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("unit", SERVICES)
def test_systemd_analyze_security_rates_it_ok(unit, tmp_path):
    name = unit.replace("@", "-instance")
    shutil.copy(UNITS / unit, tmp_path / name)
    done = subprocess.run(
        ["systemd-analyze", "security", "--offline=true", "--threshold=15", tmp_path / name],
        capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    rating = re.search(r"Overall exposure level.*", done.stdout)
    assert done.returncode == 0, rating and rating[0]


@pytest.mark.parametrize("unit", SERVICES)
def test_the_service_waits_longer_for_a_stop_than_a_drain_takes(unit):
    from nbdserve.settings import ServerSettings

    (seconds,) = re.findall(r"^TimeoutStopSec=(\d+)s$", (UNITS / unit).read_text(), re.MULTILINE)
    assert int(seconds) > ServerSettings().drain_timeout


@pytest.mark.parametrize("unit", SERVICES)
def test_the_service_is_notified_watched_and_confined(unit):
    text = (UNITS / unit).read_text()
    for line in ("Type=notify", "WatchdogSec=30s", "DynamicUser=yes", "ProtectSystem=strict"):
        assert line in text.splitlines()
    assert "CacheDirectory=nbdserve" in text
