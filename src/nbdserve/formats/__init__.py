"""Binary formats: bytes in, frozen values out."""
