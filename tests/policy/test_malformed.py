"""Every malformed file gets all its mistakes listed, each with its place, and never a traceback."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from overcoat import PolicyError
from overcoat.policy import Policy
from overcoat.policy.commands import check
from overcoat.policy.reading import MAX_BYTES

from .malformed import TOML, YAML

PRODUCTION = Path(__file__).parents[2] / "examples" / "policies"


def mistakes(path, environment=None):
    """Return what is wrong with the file, a line for each mistake, with places as "line:column"."""
    with pytest.raises(PolicyError) as caught:
        Policy.load(path, environment=environment or {})
    lines = str(caught.value).splitlines()
    assert [str(problem) for problem in caught.value.problems] == lines
    return [line.removeprefix(f"{path}:").replace(f"({path}:", "(FILE:").strip() for line in lines]


@pytest.mark.parametrize("name", YAML)
def test_yaml(name, tmp_path):
    text, expected = YAML[name]
    path = tmp_path / "policy.yaml"
    path.write_text(text)
    assert mistakes(path) == expected


@pytest.mark.parametrize("name", TOML)
def test_toml(name, tmp_path):
    text, expected = TOML[name]
    path = tmp_path / "policy.toml"
    path.write_text(text)
    assert mistakes(path) == expected


@pytest.mark.parametrize("suffix", ["yaml", "yml", "toml", "YAML"])
@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"\x00\x01\x02\xff\xfe\xfd", "1:4: the byte 0xff is not UTF-8 text"),
        (b"version: 1\npolicies: {a\xe9: {}}\n", "2:13: the byte 0xe9 is not UTF-8 text"),
        (b"\xff\xfev\x00e\x00r\x00", "1:1: the byte 0xff is not UTF-8 text"),
        (b"#" * 10 * 2**20, f"larger than {MAX_BYTES // 1024} KiB; this is no policy"),
    ],
    ids=["binary", "latin-1", "utf-16", "10 MB"],
)
def test_what_is_no_text_of_a_policy(suffix, content, expected, tmp_path):
    path = tmp_path / f"policy.{suffix}"
    path.write_bytes(content)
    assert mistakes(path) == [expected]


def test_a_byte_order_mark_is_no_mistake(tmp_path):
    path = tmp_path / "policy.yaml"
    path.write_bytes(b"\xef\xbb\xbfversion: 1\n")
    assert Policy.load(path, environment={}).for_model("gpt-4o").name == "default"


def test_windows_lines(tmp_path):
    """They move no place, neither in YAML nor in TOML."""
    for name, text in (("policy.yaml", "version: 1\r\ncach: {}\r\n"), ("policy.toml", "version = 1\r\n[cach]\r\n")):
        path = tmp_path / name
        path.write_bytes(text.encode())
        (line,) = mistakes(path)
        assert line.startswith("2:")
        assert line.endswith("cach: unknown key, did you mean 'cache'?")


def test_thousands_of_rules(tmp_path):
    """They are counted, and not compared each with all others, which would take minutes."""
    path = tmp_path / "policy.yaml"
    rules = "{match: a}, " * 4000
    path.write_text(f"version: 1\nmodels: [{rules}]\nfallbacks: [{'{from: a, to: [b]}, ' * 2000}]\n")
    lines = mistakes(path)
    assert "2:9: models: expected at most 200 values" in lines
    assert "3:12: fallbacks: expected at most 200 values" in lines


def test_missing(tmp_path):
    assert mistakes(tmp_path / "none.yaml") == ["cannot be read: No such file or directory"]


def test_a_folder(tmp_path):
    (tmp_path / "policy.yaml").mkdir()
    assert mistakes(tmp_path / "policy.yaml") == ["cannot be read: Is a directory"]


def test_below_a_file(tmp_path):
    (tmp_path / "file").touch()
    assert mistakes(tmp_path / "file" / "policy.yaml") == ["cannot be read: Not a directory"]


def test_unreadable(tmp_path, monkeypatch):
    """Scripted, because root may read everything."""

    def refuse(*arguments):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", refuse)
    (tmp_path / "policy.yaml").touch()
    assert mistakes(tmp_path / "policy.yaml") == ["cannot be read: Permission denied"]


def test_a_pipe(tmp_path):
    """Nobody waits for its other end."""
    os.mkfifo(tmp_path / "policy.yaml")
    assert mistakes(tmp_path / "policy.yaml") == ["cannot be read: it is no regular file"]


def test_a_name_that_no_system_has():
    (mistake,) = mistakes("\0.yaml")
    assert re.fullmatch("cannot be read: .*embedded null (byte|character).*", mistake), (
        "each Python has words of its own"
    )


@pytest.mark.parametrize("name", ["policy", "policy.json", "policy.yaml.bak", ""])
def test_another_format(name):
    assert mistakes(name)[-1].endswith("expected a file whose name ends in .yaml, .yml or .toml")


def test_no_file_is_named():
    with pytest.raises(PolicyError, match="no policy file is given; name one, or set OVERCOAT_CONFIG"):
        Policy.load(environment={})


def loads_or_lists(path):
    """Load a file: it is good, or every one of its mistakes says where it is."""
    problems = ()
    try:
        Policy.load(path, environment={})
    except PolicyError as error:
        problems = error.problems or [None]
    assert all(problem.message and problem.origin.source == str(path) for problem in problems)


@given(content=st.binary(max_size=200), suffix=st.sampled_from(["yaml", "toml"]))
def test_no_bytes_make_it_fall_over(content, suffix, tmp_path_factory):
    path = tmp_path_factory.getbasetemp() / f"bytes.{suffix}"
    path.write_bytes(content)
    loads_or_lists(path)


WORDS = """none null 1:30 on { } [ ] -1 0s .inf ' " *a &a << x = : , 7 true 1e999 !!set # [[ ]] default openai/*"""
FRAGMENTS = st.sampled_from([*WORDS.split(), ": ", ", ", "\t", "\n", "\u2028", '"""'])


@given(data=st.data(), suffix=st.sampled_from(["yaml", "toml"]))
def test_no_damage_to_a_good_file_makes_it_fall_over(data, suffix, tmp_path_factory):
    """A stretch of the production policy is replaced by something that hurts."""
    text = (PRODUCTION / f"production.{suffix}").read_text()
    start = data.draw(st.integers(0, len(text)))
    end = data.draw(st.integers(start, min(len(text), start + 30)))
    path = tmp_path_factory.getbasetemp() / f"damaged.{suffix}"
    path.write_text(text[:start] + data.draw(FRAGMENTS) + text[end:])
    loads_or_lists(path)


def test_check_prints_a_line_for_each(tmp_path, capsys):
    path = tmp_path / "policy.yaml"
    path.write_text(YAML["several_at_once"][0])
    assert check(path, environment={}) == 1
    assert capsys.readouterr().out.splitlines() == [f"{path}:{line}" for line in YAML["several_at_once"][1]]


def test_check_in_json(tmp_path, capsys):
    path = tmp_path / "policy.yaml"
    path.write_text(YAML["unknown_key"][0])
    assert check(path, "json", environment={"OVERCOAT_CACHES": "1"}) == 1
    assert json.loads(capsys.readouterr().out) == [
        {
            "file": str(path),
            "line": 5,
            "column": 7,
            "path": "policies.fast.retry.atempts",
            "severity": "error",
            "message": "unknown key, did you mean 'max_attempts'?",
        },
        {
            "file": "env OVERCOAT_CACHES",
            "line": None,
            "column": None,
            "path": "caches",
            "severity": "error",
            "message": "there is nothing of this name, did you mean OVERCOAT_CACHE?",
        },
    ]


@pytest.mark.parametrize(("form", "printed"), [("text", ""), ("json", "[]\n")])
def test_check_of_a_good_file(form, printed, capsys):
    assert check(PRODUCTION / "production.yaml", form, environment={}) == 0
    assert capsys.readouterr().out == printed


HANGING = """\
version: 1
breakers: {b: {}}
policies:
  careful: {breaker: b, attempt_timeout: 10s}
  heir: {extends: careful, attempt_timeout: none}
  without: {extends: heir, breaker: none}
  patient: {deadline: 60s, breaker: b}
"""


def test_check_warns_of_what_is_seldom_meant(tmp_path, capsys):
    """It is no mistake: the exit code is 0."""
    path = tmp_path / "policy.yaml"
    path.write_text(HANGING)
    assert check(path, environment={}) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.partition(": a breaker without")[0] for line in lines] == [
        f"{path}:4:22: warning: policies.careful.breaker",  # where its heir has it from
        f"{path}:7:37: warning: policies.patient.breaker",
    ]
    assert check(path, "json", environment={}) == 0
    assert [each["severity"] for each in json.loads(capsys.readouterr().out)] == ["warning", "warning"]


def test_check_warns_of_targets_that_take_no_longer_prompts(tmp_path, capsys):
    """Where both are known; and where it is for something else, the size of the window is no matter."""
    path = tmp_path / "policy.yaml"
    path.write_text(
        "version: 1\nfallbacks:\n"
        "  - {from: openai/gpt-4o, to: [openai/gpt-4.1, openai/gpt-4o-mini, own/model], when: [context_too_long]}\n"
        "  - {from: openai/gpt-4.1, to: [own/other, openai/gpt-4], when: [overloaded]}\n"
        "  - {from: openai/*, to: [openai/gpt-4o-mini], when: [context_too_long]}\n"
    )
    assert check(path, environment={}) == 0
    assert capsys.readouterr().out == (
        f"{path}:3:48: warning: fallbacks[0].to[1]: it takes no longer prompts than openai/gpt-4o, and is not asked "
        "for context_too_long\n"
    )


def test_check_says_what_is_wrong_first(tmp_path, capsys):
    path = tmp_path / "policy.yaml"
    path.write_text(HANGING + "cach: {}\n")
    assert check(path, environment={}) == 1
    assert "warning" not in capsys.readouterr().out
