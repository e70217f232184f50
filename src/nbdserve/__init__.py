"""An asyncio NBD server: pluggable sources wrapped in composable layers."""

__all__ = ["__version__"]

__version__ = "0.1.0"
