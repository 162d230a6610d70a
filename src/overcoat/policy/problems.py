"""What is wrong with a policy, and where: every value and every mistake knows the place that it comes from."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from overcoat.errors import PolicyError

Path = tuple[str | int, ...]
"""Where a value is in the document: keys, and indices from 0."""


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a value was written.

    Attributes:
        source: A file's name, "env NAME", "code" or "default".
        line: From 1; None outside of files.
        column: From 1, in characters; None outside of files.
    """

    source: str
    line: int | None = None
    column: int | None = None

    def __str__(self) -> str:
        """Return "file:line:column", as compilers have it, or the source alone."""
        return self.source if self.line is None else f"{self.source}:{self.line}:{self.column}"


CODE = Origin("code")
DEFAULT = Origin("default")


@dataclass(frozen=True, slots=True)
class Problem:
    """One mistake.

    Attributes:
        origin: Where it is.
        path: Which value it is about, such as "policies.fast.retry.max_attempts"; "" where it is the file as a whole.
        message: What is wrong, and what would be right.
    """

    origin: Origin
    path: str
    message: str

    def __str__(self) -> str:
        """Return it on one line, as editors and `grep` read it."""
        return f"{self.origin}: {self.path}: {self.message}" if self.path else f"{self.origin}: {self.message}"


def refusal(problems: Iterable[Problem]) -> PolicyError:
    """Return the error that lists *problems*, each once and in the order of the files; they are its `problems`."""
    listed = in_order(problems)
    return PolicyError("\n".join(map(str, listed)), tuple(listed))


def in_order(problems: Iterable[Problem]) -> Sequence[Problem]:
    """Return *problems* by source and line, each once: what is inherited is checked for every heir."""
    return sorted(
        dict.fromkeys(problems), key=lambda each: (each.origin.source, each.origin.line or 0, each.origin.column or 0)
    )


def written(path: Path) -> str:
    """Return *path* as people write it, such as "models[0].match"."""
    text = ""
    for step in path:
        text += f"[{step}]" if isinstance(step, int) else f".{step}" if text else step
    return text


def masked(text: str) -> str:
    """Return *text* without the user and the password of a URL in it."""
    return re.sub(r"://[^/@\s]*@", "://***@", text)


# Names that other tools have for the same, which no likeness of letters would find.
_SYNONYMS = {
    "attempts": "max_attempts",
    "max_retries": "max_attempts",
    "num_retries": "max_attempts",
    "rpm": "requests",
    "timeout": "attempt_timeout",
    "tpm": "tokens",
}


_MANY = 30
"""Words that a line can list; there are more paths of a policy than that."""


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return the end of a message: the nearest of the *known* words, or all of them where none is near."""
    words = sorted(known)
    synonym = _SYNONYMS.get(word)
    near = [synonym] if synonym in words else difflib.get_close_matches(word.lower(), words, 1)
    if near:
        return f", did you mean {near[0]!r}?"
    if len(words) > _MANY:
        words = [*(word for word in words if "." not in word), "or a path below one of them"]
    return f"; expected one of {', '.join(words)}" if words else ""
