"""Takes keys and personal data out of text before it leaves the process."""

from __future__ import annotations

import re
from collections.abc import Callable

Redactor = Callable[[str], str]
"""From a text to what of it may be exported."""

# Each pattern begins where a run of its characters begins, so that a long run without a match is read once only.
_KEY = re.compile(
    r"""
    -----BEGIN\ [A-Z ]*PRIVATE\ KEY-----.*?(?:-----END\ [A-Z ]*PRIVATE\ KEY-----|\Z)
    | \beyJ[\w-]{8,}+\.[\w-]{8,}+\.[\w-]{8,}+              # JSON Web Tokens
    | \b(?:sk|pk|rk|hf|gh[opsur]|glpat|github_pat|xox[abeprs]|npm|pypi)[-_][\w-]{16,}+
    | \b(?:AKIA|ASIA|AGPA|AROA)[A-Z0-9]{16}\b              # AWS
    | \bAIza[\w-]{35,}+                                    # Google
    """,
    re.VERBOSE | re.DOTALL,
)
_NAMED = re.compile(
    r"""
    (?P<name> \bbearer\s
            | (?<![\w-])[\w-]{0,40}(?:api[_-]?key|access[_-]?key|secret|token|passw(?:or)?d)["']?\s{0,4}[:=]
    )
    (?P<gap> \s{0,4}["']? )
    [^\s"',;]{6,}+
    """,
    re.VERBOSE | re.IGNORECASE,
)
_EMAIL = re.compile(r"(?<![\w.%+-])[\w.%+-]{1,64}@[\w-]{1,63}(?:\.[\w-]{1,63}){1,8}")
_DIGITS = re.compile(r"(?<![\w.])\d(?:[ -]?\d){12,18}(?!\w)")
_PHONE = re.compile(
    r"""
      \+\d(?:[ ()./-]{0,2}\d){7,14}                              # international, ITU-T E.164
    | (?<![\w.+-])(?:\(\d{3}\)\ ?|\d{3}[ .-])\d{3}[ .-]\d{4}    # North American
    | (?<![\w.+-])\(?0\d{1,4}[)]?[ /-]{1,3}\d{3,}(?:[ -]\d{2,}){0,4}   # national, with its trunk prefix
    """,
    re.VERBOSE,
)


def redact(text: str) -> str:
    """Put `[key]`, `[email]`, `[card]` and `[phone]` in the place of what looks like one.

    Keys are those of known shapes, and whatever is assigned to a name such as `api_key` or follows `Bearer`. Card
    numbers are those that pass the Luhn check. It takes time in proportion to the text's length.
    """
    text = _KEY.sub("[key]", text)
    text = _NAMED.sub(r"\g<name>\g<gap>[key]", text)
    text = _EMAIL.sub("[email]", text)
    text = _DIGITS.sub(_card, text)
    return _PHONE.sub("[phone]", text)


def _card(found: re.Match[str]) -> str:
    digits = [int(each) for each in found[0] if each.isdigit()]
    doubled = [each * 2 - 9 * (each > 4) for each in digits[-2::-2]]  # ISO/IEC 7812-1, annex B
    return "[card]" if (sum(doubled) + sum(digits[-1::-2])) % 10 == 0 else found[0]
