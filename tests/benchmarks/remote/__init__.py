"""`make bench-remote`: the remote job, beside nbdkit, curl, xz and qemu, in one table."""
