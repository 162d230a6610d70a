"""Holds what is remembered of those who missed a key to being exact, once, and bounded."""

from overcoat.stores import generations
from overcoat.stores.generations import Generations


def test_who_missed_a_key_began_then():
    writers = Generations[int]()
    writers.missed("n", "key", 1)
    assert writers.begun("m", "key") is None
    assert writers.begun("n", "key") == 1
    assert writers.begun("n", "key") is None


def test_of_two_that_missed_a_key_the_older_counts():
    """The other's answer is thrown away where the first one's would have to be: a miss too many, no wrong answer."""
    writers = Generations[int]()
    writers.missed("n", "key", 1)
    writers.missed("n", "key", 2)
    assert writers.begun("n", "key") == 1


def test_misses_that_nobody_follows_up_are_forgotten_in_the_end(monkeypatch):
    """Such as those of requests that failed, or whose answers are not for keeping."""
    monkeypatch.setattr(generations, "_REMEMBERED", 100)
    writers = Generations[int]()
    for index in range(150):
        writers.missed("n", str(index), 1)
    assert [writers.begun("n", str(index)) for index in range(150)] == [None] * 50 + [1] * 100
