"""A missing tool is a failure here, never a skip. What meets the event loop is run on both."""

import asyncio
import signal

import pytest
import uvloop

from coldfile import can_ring

_ON_BOTH_LOOPS = ("unit/server", "unit/overlay", "unit/sources", "property")


def pytest_configure():
    """Have children hear the signals that a shell or nohup(1) has background jobs ignore."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
        signal.signal(signal.SIGHUP, lambda *_: None)  # not the default: we still outlive it


def pytest_ignore_collect(collection_path):
    """Leave out what is about io_uring alone where that is forbidden."""
    if collection_path.name in ("test_iouring.py", "test_ringreads.py") and not can_ring():
        return True
    return None


@pytest.hookimpl(optionalhook=True)
def pytest_asyncio_loop_factories(config, item):
    """Run a test on asyncio's own loop, or on that and on uvloop."""
    place = item.path.relative_to(config.rootpath / "tests").as_posix()
    factories = {"asyncio": asyncio.new_event_loop}
    if place.startswith(_ON_BOTH_LOOPS):
        factories["uvloop"] = uvloop.new_event_loop
    return factories


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    """Report a skipped test as failed."""
    report = yield
    if report.skipped:
        report.outcome = "failed"
        report.longrepr = f"skipped, which counts as failed here: {report.longrepr}"
    return report
