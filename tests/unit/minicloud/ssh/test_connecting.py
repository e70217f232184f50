"""Every way of not getting in, and getting in."""

import asyncio
import sys

import pytest

from minicloud.errors import NodeError, Reason, UsageError
from minicloud.ssh.connecting import Connector
from minicloud.ssh.hostkeys import HostKeys, Policy
from sshnodes import Faults, black_hole, free_port, key, serving, talking

# Carries its standard input to a port, and back.
PROXY = """
import os, socket, sys, threading
there = socket.create_connection(("127.0.0.1", int(sys.argv[1])))
def back():
    while piece := there.recv(65536):
        os.write(1, piece)
threading.Thread(target=back, daemon=True).start()
while piece := os.read(0, 65536):
    there.sendall(piece)
"""


async def failure(connector, node):
    with pytest.raises(NodeError) as caught:
        await connector.connect(node)
    return caught.value


async def test_a_node_lets_us_in_and_does_what_it_is_told(home, connector):
    async with serving() as port:
        session = await connector.connect(home.node(port))
        done = await session.run(["echo", "it's $HOME"])
        await session.close()
    assert (done.status, done.stdout) == (0, b"it's $HOME\n")


async def test_nothing_listens(home, connector):
    port = free_port()
    error = await failure(connector, home.node(port))
    assert error.reason is Reason.REFUSED
    assert str(port) in error.message


async def test_a_name_that_does_not_resolve(home, connector):
    error = await failure(connector, home.node(22, host="no-such-node.invalid"))
    assert error.reason is Reason.NAME
    assert "no-such-node.invalid" in error.message


async def test_what_accepts_and_says_nothing_is_no_ssh(home):
    with black_hole() as port:
        connector = Connector(ssh_config=home.config, keys=home.keys, login=0.2)
        error = await failure(connector, home.node(port))
    assert error.reason is Reason.NO_SSH
    assert "no ssh speaks there within 0.2 s" in error.message


@pytest.mark.parametrize("greeting", [b"HTTP/1.1 400 Bad Request\r\n\r\n", b"220 mail\r\n" * 2000])
async def test_what_says_something_else_is_no_ssh(home, connector, greeting):
    async with talking(greeting) as port:
        error = await failure(connector, home.node(port))
    assert error.reason is Reason.NO_SSH


async def test_a_server_that_hangs_up_at_once_is_asked_twice(home, connector):
    connections = []

    async def hang_up(reader, writer):
        connections.append(1)
        writer.close()

    async with await asyncio.start_server(hang_up, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        error = await failure(connector, home.node(port))
    assert error.reason is Reason.NO_SSH
    assert "MaxStartups" in error.remedy
    assert len(connections) == 2


async def test_none_of_the_keys_is_let_in(home, connector):
    async with serving(Faults(lets_in=False)) as port:
        error = await failure(connector, home.node(port, user="ruth"))
    assert error.reason is Reason.AUTH
    assert "user ruth" in error.message


async def test_a_key_file_that_is_missing(home, connector):
    error = await failure(connector, home.node(1, key=home.folder / "none"))
    assert error.reason is Reason.AUTH
    assert str(home.folder / "none") in error.message


async def test_an_encrypted_key_is_no_reason_to_ask_anybody(home, connector):
    encrypted = key("client").export_private_key("pkcs8-pem", passphrase="secret")
    home.key.write_bytes(encrypted)
    async with serving() as port:
        error = await failure(connector, home.node(port))
    assert error.reason is Reason.AUTH
    assert "ssh-add" in error.remedy


async def test_a_new_host_key_is_kept_and_held_to(home, connector):
    async with serving() as port:
        node = home.node(port)
        await (await connector.connect(node)).close()
        kept = home.own.read_text()
        await (await connector.connect(node)).close()
        assert home.own.read_text() == kept
    assert kept.startswith(f"[127.0.0.1]:{port} ssh-ed25519 ")
    assert home.own.stat().st_mode & 0o777 == 0o600
    async with serving(Faults(host_key="another"), port=port):
        error = await failure(connector, node)
    assert error.reason is Reason.KEY_CHANGED


async def test_a_new_host_key_is_not_accepted_where_keys_are_strict(home):
    connector = Connector(ssh_config=home.config, keys=HostKeys(home.own, Policy.STRICT))
    async with serving() as port:
        error = await failure(connector, home.node(port))
    assert error.reason is Reason.KEY_NEW
    assert key("host").get_fingerprint() in error.message
    assert f"echo '[127.0.0.1]:{port} ssh-ed25519 " in error.remedy
    assert not home.own.exists()


async def test_what_the_remedy_for_a_new_key_writes_is_enough(home):
    connector = Connector(ssh_config=home.config, keys=HostKeys(home.own, Policy.STRICT))
    async with serving() as port:
        error = await failure(connector, home.node(port))
        home.own.parent.mkdir()
        shell = await asyncio.create_subprocess_shell(error.remedy.partition(": ")[2])
        assert await shell.wait() == 0
        await (await connector.connect(home.node(port))).close()


async def test_a_new_host_key_that_cannot_be_kept_is_not_accepted(home, connector):
    home.own.mkdir(parents=True)
    async with serving() as port:
        error = await failure(connector, home.node(port))
    assert error.reason is Reason.KEY_NEW
    assert "MINICLOUD_KNOWN_HOSTS" in error.remedy


async def test_a_host_key_of_the_users_known_hosts_is_enough(home, connector):
    async with serving() as port:
        home.trust(port)
        await (await connector.connect(home.node(port))).close()
    assert not home.own.exists()


async def test_a_changed_host_key_is_told_with_both_fingerprints_and_the_line(home, connector):
    async with serving(Faults(host_key="another")) as port:
        home.known.write_text("# a comment\n")
        home.trust(port)
        error = await failure(connector, home.node(port))
    assert error.reason is Reason.KEY_CHANGED
    assert key("host").get_fingerprint() in error.message
    assert key("another").get_fingerprint() in error.message
    assert f"{home.known}:2" in error.message
    assert f"ssh-keygen -R '[127.0.0.1]:{port}' -f {home.known}" in error.remedy


async def test_a_silent_login_ends_when_its_time_is_over(home):
    async with serving(Faults()) as port:
        home.trust(port)
        connector = Connector(ssh_config=home.config, keys=home.keys, login=0.0001)
        error = await failure(connector, home.node(port))
    assert error.reason is Reason.NO_SSH


async def test_ssh_config_names_host_user_port_and_key(home, connector):
    faults = Faults()
    async with serving(faults) as port:
        home.write_config(
            f"Host ham1\n  HostName 127.0.0.1\n  Port {port}\n  User ruth\n"
            f"  IdentityFile {home.key}\n  HostKeyAlias ham1\n"
        )
        node = home.node(None, host="ham1", user=None, key=None)
        session = await connector.connect(node)
        assert session.connection.get_extra_info("username") == "ruth"
        await session.close()
    assert home.own.read_text().split()[0] == f"[ham1]:{port}"


async def test_ssh_config_that_cannot_be_read_is_the_operators(home, connector):
    home.config.write_text("Host *\n  Port twenty\n")
    with pytest.raises(UsageError, match="line 2"):
        await connector.connect(home.node(1))


async def test_nodes_behind_a_jump_host_share_one_connection_to_it(home, connector):
    jump, behind = Faults(host_key="jump"), Faults()
    async with serving(jump) as jump_port, serving(behind) as port:
        home.write_config(
            f"Host jump\n  HostName 127.0.0.1\n  Port {jump_port}\n  IdentityFile {home.key}\n"
            "Host 127.0.0.1\n  ProxyJump jump\n"
        )
        nodes = [home.node(port, name) for name in ("ham1", "ham2")]
        sessions = await asyncio.gather(*map(connector.connect, nodes))
        assert [(await s.run(["echo", "in"])).stdout for s in sessions] == [b"in\n"] * 2
        for session in sessions:
            await session.close()
        await connector.close()
    assert (jump.logins, behind.logins) == (1, 2)
    # the jump host is held to the same rules
    assert len(home.own.read_text().splitlines()) == 2


async def test_a_jump_host_that_fails_is_named(home, connector):
    home.write_config(
        f"Host jump\n  HostName 127.0.0.1\n  Port {free_port()}\nHost 127.0.0.1\n  ProxyJump jump\n"
    )
    error = await failure(connector, home.node(2222))
    assert error.reason is Reason.REFUSED
    assert error.message.startswith("jump host jump: ")


async def test_what_the_jump_host_says_of_the_node_is_told(home, connector):
    async with serving(Faults(host_key="jump")) as jump_port:
        home.write_config(
            f"Host jump\n  HostName 127.0.0.1\n  Port {jump_port}\n  IdentityFile {home.key}\n"
            "Host 127.0.0.1\n  ProxyJump jump\n"
        )
        error = await failure(connector, home.node(free_port()))
        await connector.close()
    assert error.reason is Reason.REFUSED
    assert error.message.startswith("the jump host cannot reach 127.0.0.1 port ")


async def test_jump_hosts_in_a_circle_are_the_operators_error(home, connector):
    home.write_config("Host *\n  ProxyJump b\nHost b\n  ProxyJump a\n")
    with pytest.raises(UsageError, match="circle"):
        await connector.connect(home.node(22))


async def test_a_proxy_command_is_run(home, connector):
    async with serving() as port:
        program = home.folder / "proxy.py"
        program.write_text(PROXY)
        home.write_config(f"Host 127.0.0.1\n  ProxyCommand {sys.executable} {program} {port}\n")
        home.trust(port)
        session = await connector.connect(home.node(port))
        assert (await session.run(["true"])).status == 0
        await session.close()


async def test_a_certificate_of_a_known_authority_is_enough(home, connector):
    home.known.write_text("@cert-authority * " + key("authority").export_public_key().decode())
    certificate = key("authority").generate_host_certificate(key("host"), "h", principals=())
    async with serving(host_key=(key("host"), certificate)) as port:
        await (await connector.connect(home.node(port))).close()
    assert not home.own.exists()


async def test_a_host_without_a_certificate_is_known_by_its_key_all_the_same(home, connector):
    home.known.write_text("@cert-authority * " + key("authority").export_public_key().decode())
    async with serving() as port:
        home.trust(port)
        await (await connector.connect(home.node(port))).close()
    assert not home.own.exists()
