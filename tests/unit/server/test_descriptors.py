"""The limit of descriptors is raised as far as it goes, and it is told where it does not."""

import resource

import pytest

from nbdserve.server.descriptors import allow_descriptors


@pytest.fixture
def limits(monkeypatch):
    made = {"now": (1024, 4096)}
    monkeypatch.setattr(resource, "getrlimit", lambda _: made["now"])
    monkeypatch.setattr(resource, "setrlimit", lambda _, wanted: made.update(now=wanted))
    return made


@pytest.mark.parametrize(
    ("clients", "granted", "told"),
    [(100, 1024, False), (1000, 1256, False), (3840, 4096, False), (5000, 4096, True)],
)
def test_it_is_raised_for_so_many_clients(limits, caplog, clients, granted, told):
    allow_descriptors(clients)
    assert limits["now"] == (granted, 4096)
    assert bool(caplog.records) is told


@pytest.mark.parametrize("error", [OSError(1, "no"), ValueError("no")])
def test_a_sandbox_that_forbids_it_is_no_failure(limits, caplog, monkeypatch, error):
    def refuse(*_):
        raise error

    monkeypatch.setattr(resource, "setrlimit", refuse)
    allow_descriptors(2000)
    assert "too few file descriptors" in caplog.text


def test_without_a_limit_nothing_is_done(limits):
    limits["now"] = (resource.RLIM_INFINITY, resource.RLIM_INFINITY)
    allow_descriptors(1 << 30)
    assert limits["now"] == (resource.RLIM_INFINITY, resource.RLIM_INFINITY)
