"""A template of the inventory that says as little as it can."""

from minicloud.model.inventory import Bus, Template

__all__ = ["bare_template"]


def bare_template(**keys: object) -> Template:
    """Make one, with some keys of its own."""
    made: dict[str, object] = {
        "name": "t", "image": ("/t",), "memory": 1, "vcpus": 1, "bus": Bus.VIRTIO,
        "network": "none",
    }  # fmt: skip
    return Template(**{**made, **keys})
