"""The smallest sensible interface to parallel libvirt over ssh."""

__all__ = ["__version__"]

__version__ = "0.1.0"
