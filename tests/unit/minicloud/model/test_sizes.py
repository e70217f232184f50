import pytest

from minicloud.model.sizes import size_text


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0B"),
        (1023, "1023B"),
        (1024, "1K"),
        (1536, "1.5K"),
        (int(15.2 * (1 << 30)), "15.2G"),
        (1 << 30, "1.0G"),
        ((1 << 30) - 1, "1.0G"),
        (512 << 20, "512M"),
        (5 << 40, "5.0T"),
        (-(3 << 30), "-3.0G"),
    ],
)
def test_a_size_is_written_as_mclu_does(size, text):
    assert size_text(size) == text
