"""What went wrong with ssh, for the operator: asyncssh's exceptions → NodeError.

Which exception it was is half of the story; how far the node had come is the other half.
"""

import asyncssh

from minicloud.deadline import seconds_text
from minicloud.errors import NodeError, Reason
from minicloud.ssh.greeting import Greeting, Phase

__all__ = [
    "login_failure", "login_silence", "lost", "not_opened", "socket_not_opened", "via_jump",
]  # fmt: skip

# What an ssh server says when a connection it was asked to make failed: OpenSSH the error's words
# (channels.c), asyncssh its number.
_FROM_THERE = {
    "refused": Reason.REFUSED,
    "errno 111": Reason.REFUSED,
    "no route": Reason.OFF,
    "errno 113": Reason.OFF,
    "unreachable": Reason.OFF,
    "timed out": Reason.UNREACHABLE,
    "not known": Reason.NAME,
    "name resolution": Reason.NAME,
}


def login_failure(exc: Exception, greeting: Greeting, user: str, place: str) -> NodeError:
    """Say why a node that was reached let nobody in.

    Args:
        exc: asyncssh's, or the socket's.
        greeting: how far it came.
        user: who wanted in.
        place: `HOST port N`.
    """
    if greeting.refusal is not None:
        return greeting.refusal
    if greeting.phase is Phase.LOGIN and "authentication" in str(exc).lower():
        return _no_login(user, str(exc))
    return _told_by_asyncssh(exc, user, place) or _broken_off(exc, greeting, place)


def _told_by_asyncssh(exc: Exception, user: str, place: str) -> NodeError | None:
    """Say what asyncssh has an exception of its own for."""
    match exc:
        case asyncssh.HostKeyNotVerifiable():
            return NodeError(
                Reason.KEY_CHANGED, f"its host key cannot be believed: {exc.reason}",
                "see ssh(1), VERIFYING HOST KEYS",
            )  # fmt: skip
        case asyncssh.PermissionDenied():
            return _no_login(user, exc.reason)
        case asyncssh.ChannelOpenError():
            return _unreached_from_jump(exc, place)
        case asyncssh.KeyExchangeFailed():
            return NodeError(
                Reason.NO_SSH, f"{place} and we share no algorithm: {exc.reason}",
                "allow one that both know: Ciphers, KexAlgorithms, MACs in ssh_config",
            )  # fmt: skip
    return None


def login_silence(greeting: Greeting, place: str, seconds: float) -> NodeError:
    """Say what a node did that was reached, and then not done with within its time."""
    what = {
        Phase.REACHING: f"no answer from {place}",
        Phase.CONNECTED: f"{place} accepts connections, but no ssh speaks there",
        Phase.KEYS: f"sshd at {place} did not finish the exchange of keys",
        Phase.LOGIN: f"sshd at {place} did not finish the login",
    }.get(greeting.phase, f"sshd at {place} stalled")
    reason = Reason.UNREACHABLE if greeting.phase is Phase.REACHING else Reason.NO_SSH
    return NodeError(
        reason,
        f"{what} within {seconds_text(seconds)}",
        "sshd or the whole node hangs, or it is no sshd",
    )


def via_jump(exc: NodeError, jump: str) -> NodeError:
    """Say that it was the jump host that failed, not the node."""
    return NodeError(exc.reason, f"jump host {jump}: {exc.message}", exc.remedy)


def not_opened(exc: asyncssh.ChannelOpenError, what: str, *, is_lost: bool) -> NodeError:
    """Say why a way through an open connection was not opened.

    Args:
        exc: asyncssh's.
        what: it leads to: `HOST port N`, or a command.
        is_lost: whether the connection itself is gone.
    """
    if is_lost:
        return lost()
    if exc.code == asyncssh.OPEN_ADMINISTRATIVELY_PROHIBITED:
        return NodeError(
            Reason.NO_FORWARDING, f"sshd forbids the way to {what}",
            "AllowTcpForwarding yes in sshd_config",
        )  # fmt: skip
    reason = next(
        (reason for words, reason in _FROM_THERE.items() if words in exc.reason.lower()),
        Reason.NO_FORWARDING,
    )
    return NodeError(reason, f"sshd did not open the way to {what}: {exc.reason}")


def socket_not_opened(exc: asyncssh.ChannelOpenError, path: str, *, is_lost: bool) -> NodeError:
    """Say that a Unix socket was not opened; sshd never says why.

    Args:
        exc: asyncssh's.
        path: of the socket on the node.
        is_lost: whether the connection itself is gone.
    """
    if is_lost:
        return lost()
    return NodeError(
        Reason.NO_FORWARDING, f"sshd did not open {path}: {exc.reason}",
        "is it there, may this user use it, and is AllowStreamLocalForwarding yes in sshd_config?",
    )  # fmt: skip


def lost(during: str = "") -> NodeError:
    """Say that a connection which was in use is gone, and what for if that helps."""
    told = f" {during}" if during else ""
    return NodeError(Reason.SSH_LOST, f"the ssh connection was lost{told}", "run it again")


def _no_login(user: str, why: str) -> NodeError:
    if "too many" in why.lower():
        return NodeError(
            Reason.AUTH, f"sshd gave up on user {user}: {why}",
            "offer fewer keys: `key` in the inventory, with IdentitiesOnly yes in ssh_config",
        )  # fmt: skip
    return NodeError(
        Reason.AUTH, f"sshd lets user {user} in with none of the keys offered",
        "ssh-copy-id, or name `user` and `key` in the inventory, or ssh-add an encrypted key",
    )  # fmt: skip


def _unreached_from_jump(exc: asyncssh.ChannelOpenError, place: str) -> NodeError:
    failure = not_opened(exc, place, is_lost=False)
    if failure.reason is Reason.OFF:
        return NodeError(Reason.OFF, f"off: the jump host says: {exc.reason}")
    return NodeError(
        failure.reason, f"the jump host cannot reach {place}: {exc.reason}", failure.remedy
    )


def _broken_off(exc: Exception, greeting: Greeting, place: str) -> NodeError:
    if isinstance(exc, asyncssh.ProtocolError | asyncssh.ProtocolNotSupported):
        return NodeError(
            Reason.NO_SSH, f"what listens at {place} speaks no ssh: {exc.reason}",
            "correct `port` in the inventory",
        )  # fmt: skip
    if greeting.phase <= Phase.CONNECTED:
        return NodeError(
            Reason.NO_SSH, f"{place} closed the connection before ssh spoke",
            "sshd may be overloaded (MaxStartups) or refuse this address",
        )  # fmt: skip
    return lost()
