import pytest

from minicloud.passwords import hash_password, new_salt

# the examples of Drepper's source
EXAMPLES = [
    (
        "Hello world!", "saltstring", 5000,
        ("$6$saltstring$"
        "svn8UoSVapNtMuq1ukKS4tPQd8iKwSMHWjl/O817G3uBnIFNjnQJuesI68u4OTLiBFdcbYEdFCoEOfaS35inz1"),
    ),
    (
        "Hello world!", "saltstringsaltst", 10000,
        ("$6$rounds=10000$saltstringsaltst$"
        "OW1/O6BYHV6BcXZu8QVeXbDWra3Oeqh0sbHbbMCVNSnCM/UrjmM0Dp8vOuZeHBy/YTBmSK6H9qs/y3RnOaw5v."),
    ),
    (
        "This is just a test", "toolongsaltstrin", 5000,
        ("$6$toolongsaltstrin$"
        "lQ8jolhgVRVhY4b5pZKaysCLi0QBxGoNeKQzQ3glMhwllF7oGDZxUhx1yxdYcz/e1JSbq3y6JMxxl8audkUEm0"),
    ),
    (
        "we have a short salt string but not a short password", "short", 77777,
        ("$6$rounds=77777$short$"
        "WuQyW2YR.hBNpjjRhpYD/ifIw05xdfeEyQoMxIXbkvr0gge1a1x3yRULJ5CCaUeOxFmtlcGZelFl5CxtgfiAc0"),
    ),
    (
        "a very much longer text to encrypt.  This one even stretches over morethan one line.",
        "anotherlongsalts", 1400,
        ("$6$rounds=1400$anotherlongsalts$"
        "POfYwTEok97VWcjxIiSOjiykti.o/pQs.wPvMxQ6Fm7I6IoYN3CmLs66x9t0oSwbtEW7o7UmJEiDwGqd8p4ur1"),
    ),
]  # fmt: skip


@pytest.mark.parametrize(("password", "salt", "rounds", "hashed"), EXAMPLES)
def test_the_examples_of_the_source_come_out(password, salt, rounds, hashed):
    assert hash_password(password, salt, rounds=rounds) == hashed


def test_a_salt_is_one_of_crypts_and_another_each_time():
    salts = {new_salt() for _ in range(20)}
    assert len(salts) == 20
    assert all(hash_password("x", salt, rounds=1).startswith("$6$") for salt in salts)
