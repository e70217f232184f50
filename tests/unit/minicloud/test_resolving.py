"""Names to addresses, where the resolver answers, says no, and hangs."""

import socket
import threading

import pytest

from minicloud.resolving import addresses_of, look_up


async def test_an_address_is_its_own_answer():
    assert await addresses_of("192.0.2.7", seconds=0) == ["192.0.2.7"]
    [(family, *_, address)] = await look_up("192.0.2.7", 22)
    assert (family, address) == (socket.AF_INET, ("192.0.2.7", 22))


async def test_a_name_is_looked_up_in_a_thread_the_interpreter_does_not_wait_for(monkeypatch):
    seen = []

    def answer(*given, **options):
        seen.append(threading.current_thread().daemon)
        raise socket.gaierror(socket.EAI_NONAME, "unknown")

    monkeypatch.setattr(socket, "getaddrinfo", answer)
    assert await addresses_of("ham0.lan", seconds=60) == []
    assert seen == [True]
    with pytest.raises(socket.gaierror):
        await look_up("ham0.lan")


async def test_a_resolver_that_hangs_is_not_waited_for(monkeypatch):
    hangs = threading.Event()
    monkeypatch.setattr(socket, "getaddrinfo", lambda *given, **options: hangs.wait())
    assert await addresses_of("ham0.lan", seconds=0) == []
    hangs.set()
