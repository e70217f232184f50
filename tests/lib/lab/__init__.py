"""A lab of nodes on one machine: each with its own sshd, libvirtd and virtlogd, all in namespaces.

A node is a process that stands for its pid 1, in network, mount, pid, uts and ipc namespaces of
its own; killing that one process is a power cut. The hub is a network namespace with a bridge that
all nodes are plugged into: who asks the nodes, and who serves their guests' disks, lives there.

Invariants:

- Nothing is done to this machine's own network, and no process is looked for by its name: what is
  ended is what was started here. Several labs live beside each other, even with equal addresses.
- A lab that is used as a context manager ends with the process that made it, however that ends:
  all of its processes wait for the end of one pipe. The kernel takes the namespaces away then.
- A lab made by `python -m lab up` stays until `python -m lab down`.

It takes root, /dev/net/tun, util-linux, iproute2, openssh-server, libvirt-daemon and qemu.
"""

from .lab import Lab, missing
from .network import Namespace
from .node import Node
from .process import LabError

__all__ = ["Lab", "LabError", "Namespace", "Node", "missing"]
