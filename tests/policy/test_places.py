"""Every value is found where it stands in the file, however it is written, and is the same in YAML as in TOML."""

from __future__ import annotations

import json
import tomllib

from hypothesis import given
from hypothesis import strategies as st

from overcoat.policy.toml_reading import read_toml
from overcoat.policy.tree import Node
from overcoat.policy.yaml_reading import read_yaml

KEYS = st.sampled_from(["a", "b2", "c_d", "quoted key", "dotted.key", "#", "=", "ä", "'"])
SCALARS = (
    st.integers(-99, 99) | st.booleans() | st.sampled_from(["", "x", "30s", "#no", "[", "}", ",", "'", '"', "ä\\n"])
)
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3), max_leaves=8
)
DOCUMENTS = st.dictionaries(KEYS, VALUES, min_size=1, max_size=4)


def leaves(node: Node):
    """Yield every scalar of a tree."""
    children = [*node.entries.values(), *node.items]
    if not children and not isinstance(node.value, (dict, list)):
        yield node
    for child in children:
        yield from leaves(child)


def key_of(name):
    return name if name.isascii() and name.replace("_", "").isalnum() else json.dumps(name, ensure_ascii=False)


def forms_of(value):
    """Return the ways in which TOML can write a scalar; the first is JSON's."""
    forms = [json.dumps(value, ensure_ascii=False)]
    if isinstance(value, str) and "'" not in value:
        forms += [f"'{value}'", f"'''{value}'''"]
    if isinstance(value, str) and not {'"', "\\"} & set(value):
        forms.append(f'"""{value}"""')
    return forms


def inline(value, draw):
    """Write a value on one line or, where it is a list, on several."""
    blank = draw(st.sampled_from(["", " ", "\t"]))
    if isinstance(value, dict):
        pairs = [f"{key_of(key)}{blank}={blank}{inline(each, draw)}" for key, each in value.items()]
        return "{" + blank + f"{blank},{blank}".join(pairs) + blank + "}"
    if isinstance(value, list):
        line = draw(st.sampled_from([blank, "\n", "  # [ } '\n  "]))
        comma = "," if value and draw(st.booleans()) else ""
        return "[" + line + f"{line},{line}".join(inline(each, draw) for each in value) + comma + line + "]"
    return draw(st.sampled_from(forms_of(value)))


def toml_of(document, draw, path=()):
    """Write a document with headers, dotted keys, inline tables and arrays of tables, as it comes."""
    lines, tables = [], []
    for key, value in document.items():
        here = (*path, key_of(key))
        if isinstance(value, dict) and value and draw(st.booleans()):
            tables += [f"[{' . '.join(here)}]  # ]", *toml_of(value, draw, here)]
        elif (
            isinstance(value, list) and value and all(isinstance(each, dict) for each in value) and draw(st.booleans())
        ):
            for each in value:
                tables += [f"[[{'.'.join(here)}]]", *toml_of(each, draw, here)]
        elif isinstance(value, dict) and value and draw(st.booleans()):
            lines += [f"{here[-1]}.{key_of(inner)} = {inline(each, draw)}" for inner, each in value.items()]
        else:
            lines.append(f"{' ' * draw(st.integers(0, 2))}{here[-1]} = {inline(value, draw)} # '")
    return [*lines, *tables]


def text_at(text, origin):
    return text.split("\n")[origin.line - 1][origin.column - 1 :]


def stands_there(node, text):
    """Say whether a scalar is where its place says, and its key, or the first of those with dots, where that says."""
    keys = [form for step in node.path for form in (key_of(str(step)), json.dumps(step, ensure_ascii=False))]
    values = tuple(forms_of(node.value))
    return text_at(text, node.origin).startswith(values) and text_at(text, node.key).startswith((*keys, *values))


@given(document=DOCUMENTS, data=st.data())
def test_toml(document, data):
    text = "\n".join(toml_of(document, data.draw))
    assert tomllib.loads(text) == document  # or the writer above is wrong
    problems = []
    tree = read_toml(text, "f.toml", problems)
    assert not problems
    assert tree.plain() == document
    assert [node for node in leaves(tree) if not stands_there(node, text)] == []


@given(document=DOCUMENTS, indent=st.sampled_from([None, 1, 4]))
def test_yaml(document, indent):
    """JSON is YAML."""
    text = json.dumps(document, ensure_ascii=False, indent=indent)
    problems = []
    tree = read_yaml(text, "f.yaml", problems)
    assert not problems
    assert tree.plain() == document
    assert [node for node in leaves(tree) if not stands_there(node, text)] == []
