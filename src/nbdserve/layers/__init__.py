"""Layers: the devices that wrap another one."""
