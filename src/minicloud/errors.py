"""The errors of minicloud, by whose they are: the operator's, a node's, or the export server's.

A `UsageError` ends the command with status 2. A `NodeError` is one node's row in a result: it never
hides what the other nodes said. A `StorageError` is the export server's answer to one request.
"""

import enum

from nbdserve.errors import ConfigError

__all__ = ["MinicloudError", "NodeError", "Reason", "StorageError", "UsageError"]


class MinicloudError(Exception):
    """Any error this project raises on purpose; its text is one line for the operator."""


class UsageError(ConfigError, MinicloudError):
    """What the operator wrote cannot be used; ends the command with exit status 2.

    Takes what nbdserve's ConfigError takes: what is wrong and what to write instead, and the file,
    the table (`nodes.ham0`) and the key that it stands in.
    """


class Reason(enum.StrEnum):
    """Why a node could not do what was asked of it; a reason, once given, keeps its meaning.

    The values are what `--json` says. `OFF` is a normal state of a node, all others are not.
    """

    OFF = "off"  # no route, no ARP entry: it is switched off or unplugged
    UNREACHABLE = "unreachable"  # no answer at all within the time: black-holed, or its cable cut
    NAME = "name"  # its name does not resolve
    REFUSED = "refused"  # the host is there, sshd is not
    NO_SSH = "no-ssh"  # something accepts and says nothing, or no ssh
    KEY_NEW = "host-key-new"  # its host key is not known, and may not be accepted
    KEY_CHANGED = "host-key-changed"  # its host key is another than the known one
    AUTH = "auth"  # it lets this user in with none of the keys
    SSH_LOST = "ssh-lost"  # the connection broke while it was used
    NO_LIBVIRTD = "libvirtd-down"  # nothing listens on libvirt's socket
    LIBVIRT_PERMISSION = "libvirt-permission"  # the user may not use libvirt's socket
    NO_FORWARDING = "no-forwarding"  # sshd forbids it, and there is no virt-ssh-helper either
    LIBVIRT_HUNG = "libvirtd-hung"  # libvirtd does not answer within the time
    LIBVIRT_LOST = "libvirt-lost"  # libvirtd ended while it was used
    LIBVIRT = "libvirt"  # libvirtd said no
    COMMAND = "command"  # a command on the node failed
    TOOL = "tool-missing"  # a program that is needed is on no machine
    DEADLINE = "deadline"  # the time for the whole command was over before this node was done


class NodeError(MinicloudError):
    """A node could not do what was asked of it.

    Args:
        reason: for programs.
        message: for people: what happened, one line, without the node's name.
        remedy: what the operator may do about it, one line; empty if there is nothing to say.
    """

    def __init__(self, reason: Reason, message: str, remedy: str = "") -> None:
        self.reason = reason
        self.message = message
        self.remedy = remedy
        super().__init__(f"{message}; {remedy}" if remedy else message)


class StorageError(MinicloudError):
    """The server of the exports could not do what was asked, or is not there.

    Args:
        kind: as in the control protocol (`nbdserve.control.messages.FailureKind`), or
            `unreachable` where there was no answer.
        message: what happened and what to do about it, one line.
    """

    def __init__(self, kind: str, message: str) -> None:
        self.kind = kind
        super().__init__(message)
