"""io_uring by ctypes: many reads of files handed to the kernel by one system call.

Why: a read that has to wait for the disk costs 7 us of CPU this way, of which the event loop spends
1.4; a thread that reads one after the other costs 11 and gives the GIL away for each.

A ring may be forbidden (kernel.io_uring_disabled, seccomp) or not there: then `Ring` raises OSError
and one does without. So it does on other processors than x86-64: the kernel and we write to memory
that both see, and Python has no barriers for those that reorder this.

Source: io_uring(7), io_uring_setup(2), io_uring_enter(2), linux/io_uring.h.
"""

import contextlib
import ctypes
import errno
import mmap
import os
import platform
import struct
import time
from typing import Final

__all__ = ["Completion", "Ring", "address_of"]

# The same on every architecture but alpha.
_SETUP: Final = 425
_ENTER: Final = 426
_REGISTER: Final = 427

_SINGLE_MMAP: Final = 1 << 0  # features, linux/io_uring.h
_NODROP: Final = 1 << 1
_SQES_AT: Final = 0x10000000
_REGISTER_EVENTFD: Final = 4
_OP_READ: Final = 22

# struct io_uring_params: entries of both queues, flags, sq_thread_cpu, sq_thread_idle, features,
# wq_fd and three reserved; then where the parts of the submission and of the completion queue lie.
_PARAMS: Final = struct.Struct("=10I 10I 10I")
# struct io_uring_sqe: opcode, flags, ioprio, fd, off, addr, len, rw_flags, user_data, padding
_SQE: Final = struct.Struct("=BBHiQQIIQ24x")
# struct io_uring_cqe: user_data, res, flags
_CQE: Final = struct.Struct("=QiI")
_WRAP: Final = 0xFFFFFFFF

_libc = ctypes.CDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long


Completion = tuple[int, int, int]
"""The end of a read: its tag, the bytes read or an errno, negative, and flags of no use here."""


class Ring:
    """A submission and a completion queue shared with the kernel.

    `put`, `publish` and `reap` belong to one thread, `enter` to another (or the same), which has to
    live as long as its reads: the kernel ends them with it. Up to `entries` reads may be under way;
    the caller counts.

    Args:
        entries: a power of two.

    Attributes:
        eventfd: becomes readable when reads have ended.

    Raises:
        OSError: the kernel has no io_uring, or it is forbidden.
    """

    def __init__(self, entries: int) -> None:
        if platform.machine() != "x86_64":
            raise OSError(errno.ENOSYS, "io_uring is used on x86-64 only")
        params = ctypes.create_string_buffer(_PARAMS.size)
        self.fd = _call(_SETUP, entries, params)
        try:
            found = _PARAMS.unpack(params.raw)
            self._map(found[0], found[1], found[5], found[10:20], found[20:30])
            self.eventfd = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        except BaseException:
            os.close(self.fd)
            raise
        try:
            number = ctypes.c_int(self.eventfd)
            _call(_REGISTER, self.fd, _REGISTER_EVENTFD, ctypes.byref(number), 1)
        except BaseException:
            self.close()
            raise

    def _map(
        self,
        submissions: int,
        completions: int,
        features: int,
        sq: tuple[int, ...],
        cq: tuple[int, ...],
    ) -> None:
        """Map the queues; `sq` and `cq` are struct io_sqring_offsets and io_cqring_offsets."""
        if not features & _SINGLE_MMAP or not features & _NODROP:
            raise OSError(errno.ENOSYS, "io_uring as it was before Linux 5.5")
        size = max(sq[6] + 4 * submissions, cq[5] + _CQE.size * completions)
        self._queues = mmap.mmap(self.fd, size)
        self._sqes = mmap.mmap(self.fd, _SQE.size * submissions, offset=_SQES_AT)
        self._words = memoryview(self._queues)[: size // 4 * 4].cast("I")
        self._sq_tail = sq[1] // 4
        self._sq_mask = self._words[sq[2] // 4]
        self._cq_head, self._cq_tail = cq[0] // 4, cq[1] // 4
        self._cq_mask = self._words[cq[2] // 4]
        self._cqes = cq[5]
        for place in range(submissions):  # the entry at each place is the one of that number
            self._words[sq[6] // 4 + place] = place
        self._tail = 0

    def put(self, fd: int, offset: int, address: int, length: int, tag: int) -> None:
        """Write a read down, to be begun after `publish` and `enter`.

        Args:
            fd: an open file.
            offset: where in the file, in bytes.
            address: of memory that stays where it is until the read has ended.
            length: bytes.
            tag: comes back with its end; 64 bits.
        """
        place = (self._tail & self._sq_mask) * _SQE.size
        _SQE.pack_into(self._sqes, place, _OP_READ, 0, 0, fd, offset, address, length, 0, tag)
        self._tail = (self._tail + 1) & _WRAP

    def publish(self) -> None:
        """Let the kernel see what was put."""
        self._words[self._sq_tail] = self._tail

    def enter(self, count: int) -> None:
        """Have the kernel begin so many published reads; may wait for the disk's queue.

        Raises:
            OSError: as io_uring_enter(2) says.
        """
        while count:
            try:
                begun = _call(_ENTER, self.fd, count, 0, 0, None, 0)
            except OSError as exc:
                if exc.errno not in (errno.EINTR, errno.EAGAIN, errno.EBUSY):
                    raise
                begun = 0
            count -= begun
            if not begun:
                time.sleep(0.001)  # short of memory for a moment

    def reap(self, most: int) -> list[Completion]:
        """Take ends of reads, `most` of them; with fewer, hear no more of these by `eventfd`."""
        with contextlib.suppress(BlockingIOError):
            os.eventfd_read(self.eventfd)
        words, mask, at = self._words, self._cq_mask, self._cqes
        head, tail = words[self._cq_head], words[self._cq_tail]
        found: list[Completion] = []
        while head != tail and len(found) < most:
            found.append(_CQE.unpack_from(self._queues, at + (head & mask) * _CQE.size))
            head = (head + 1) & _WRAP
        words[self._cq_head] = head
        return found

    def close(self) -> None:
        """Give the ring back; when nothing is under way any more."""
        self._words.release()
        self._queues.close()
        self._sqes.close()
        os.close(self.eventfd)
        os.close(self.fd)


def address_of(view: memoryview) -> int:
    """Return where the bytes of a writable buffer lie; they must be kept from being freed."""
    return ctypes.addressof(ctypes.c_char.from_buffer(view))


def _call(number: int, *args: object) -> int:
    words = [ctypes.c_long(arg) if isinstance(arg, int) else arg for arg in args]
    result = int(_libc.syscall(ctypes.c_long(number), *words))
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return result
