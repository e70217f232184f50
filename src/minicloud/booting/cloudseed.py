"""The cloud-init seed of a guest that is to be made: the template's user-data and the operator's.

Files are read here, before anything is touched, so that a missing one costs nothing.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from minicloud.cloudconfig import CloudOptions, user_data
from minicloud.errors import UsageError
from minicloud.seed import Seed, seed_image

__all__ = ["Wishes", "cloud_seed"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Wishes:
    """What the operator wants of cloud-init.

    Attributes:
        user_data: a file of theirs, or None.
        key_files: of ssh's public keys.
        root_password: its hash, or None.
        hostname: asked for by name, or None.
    """

    user_data: Path | None = None
    key_files: Sequence[Path] = ()
    root_password: str | None = None
    hostname: str | None = None


def cloud_seed(wishes: Wishes, template_data: Path | None, *, name: str, uuid: str) -> bytes | None:
    """Make the seed.

    Args:
        wishes: the operator's; a file of theirs stands in for the template's.
        template_data: the template's own file of user-data, or None.
        name: of the guest.
        uuid: of it; cloud-init begins anew when it is another one.

    Returns:
        An image, or None where nothing calls for one.

    Raises:
        UsageError: a file cannot be read, holds no keys, or all is too much.
    """
    path = template_data if wishes.user_data is None else wishes.user_data
    keys = tuple(key for file in wishes.key_files for key in _keys(file))
    options = CloudOptions(ssh_keys=keys, root_password=wishes.root_password)
    if path is None and options == CloudOptions() and wishes.hostname is None:
        return None
    own = None if path is None else _read(path, "user-data")
    seed = Seed(
        instance_id=uuid, hostname=wishes.hostname or name, user_data=user_data(options, own)
    )
    return seed_image(seed)


def _keys(path: Path) -> list[str]:
    text = _read(path, "ssh key").decode(errors="replace")
    if "PRIVATE KEY" in text:
        raise UsageError(f"{path} is a private key; name its public one, {path}.pub")
    keys = [line.strip() for line in text.splitlines() if line.strip() and line.lstrip()[0] != "#"]
    if not keys or any(len(key.split()) < 2 for key in keys):
        raise UsageError(f"{path} holds no public keys of ssh; make one with ssh-keygen")
    return keys


def _read(path: Path, what: str) -> bytes:
    try:
        return path.expanduser().read_bytes()
    except OSError as exc:
        raise UsageError(f"cannot read the {what} in {path}: {exc.strerror}") from None
