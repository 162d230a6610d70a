"""Holds sizes to what people mean by them."""

import pytest

from overcoat.arithmetic.sizes import byte_count


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1", 1),
        ("67108864", 2**26),
        ("64MiB", 2**26),
        ("64 MiB", 2**26),
        ("64MB", 64_000_000),
        ("1kB", 1000),
        ("1KiB", 1024),
        ("2GB", 2 * 10**9),
        ("2GiB", 2**31),
        ("5B", 5),
    ],
)
def test_sizes(text, expected):
    assert byte_count(text, "max_bytes") == expected


@pytest.mark.parametrize(
    "text", ["", "0", "0MiB", "-1", "1.5GiB", "64mib", "MiB", "1 TB", " 1", "\u0661", "1e6", "64MiBs"]
)
def test_what_is_no_size_says_so(text):
    with pytest.raises(
        ValueError, match=r"^max_bytes: '.*' is no size; expected a whole number with its unit, such as"
    ):
        byte_count(text, "max_bytes")
