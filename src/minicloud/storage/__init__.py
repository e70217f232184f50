"""The server of the guests' disks: nbdserve's control socket, here or on another machine."""
