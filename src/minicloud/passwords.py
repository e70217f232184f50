"""Hashes of passwords as shadow(5) keeps them: SHA-crypt with SHA-512, `$6$SALT$HASH`.

Python's own `crypt` is gone in 3.13, and a hash made here needs no program that might be missing.
What leaves this machine is the hash. Source: U. Drepper, "Unix crypt using SHA-256 and SHA-512",
2007, whose steps are numbered in the comments and whose examples are the tests.
"""

import hashlib
import re
import secrets
from collections.abc import Iterator
from typing import Final

__all__ = ["hash_password", "new_salt"]

_ALPHABET: Final = "./0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_SALT = re.compile(r"[./0-9A-Za-z]{1,16}")
_DEFAULT_ROUNDS: Final = 5000  # left out of the hash, as the source has it
_LENGTH: Final = 64


def new_salt() -> str:
    """Draw 16 characters of salt, the most there may be."""
    return "".join(secrets.choice(_ALPHABET) for _ in range(16))


def hash_password(password: str, salt: str, *, rounds: int = _DEFAULT_ROUNDS) -> str:
    """Hash a password; takes some 10 ms.

    Args:
        password: any text.
        salt: up to 16 characters of `./0-9A-Za-z`.
        rounds: how often to go round; more takes whoever guesses longer.
    """
    assert _SALT.fullmatch(salt), "new_salt() makes them"
    prefix = "$6$" if rounds == _DEFAULT_ROUNDS else f"$6$rounds={rounds}$"
    digest = _digest(password.encode(), salt.encode(), rounds)
    return f"{prefix}{salt}${''.join(_encoded(digest))}"


def _digest(key: bytes, salt: bytes, rounds: int) -> bytes:
    sha = hashlib.sha512
    other = sha(key + salt + key).digest()  # steps 4 to 8
    start = key + salt + _cut(other, len(key))  # steps 2, 3, 9, 10
    length = len(key)
    while length:  # step 11
        start += other if length & 1 else key
        length >>= 1
    digest = sha(start).digest()  # step 12
    p = _cut(sha(key * len(key)).digest(), len(key))  # steps 13 to 16
    s = _cut(sha(salt * (16 + digest[0])).digest(), len(salt))  # steps 17 to 20
    for number in range(rounds):  # step 21
        odd = number & 1
        digest = sha(
            (p if odd else digest)
            + (s if number % 3 else b"")
            + (p if number % 7 else b"")
            + (digest if odd else p)
        ).digest()
    return digest


def _cut(digest: bytes, length: int) -> bytes:
    """Repeat a digest to a length."""
    return (digest * (length // _LENGTH + 1))[:length]


def _encoded(digest: bytes) -> Iterator[str]:
    """Write a digest in crypt's own base 64 and order of bytes (step 22)."""
    first, second, third = 0, 21, 42
    for _ in range(21):
        yield _letters(digest[first] << 16 | digest[second] << 8 | digest[third], 4)
        first, second, third = second + 1, third + 1, first + 1
    yield _letters(digest[63], 2)


def _letters(value: int, count: int) -> str:
    return "".join(_ALPHABET[value >> 6 * at & 63] for at in range(count))
