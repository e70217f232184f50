"""Guests as libvirt's XML, and back: pure, so that every form is compared with a golden file."""
