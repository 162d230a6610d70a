"""db-ally's own event handlers say beside a trace what they say without one."""

from __future__ import annotations

import re
import sys
from types import ModuleType

import pytest

from overcoat.testing import run

from ..real.parts import need


@pytest.fixture
def said(od, library):
    """Gives what a handler, made anew, has said of one ask; with a trace and without."""

    def saying(make, read, **settings):
        run(library.languages.update())
        texts = []
        for trace in (lambda collection: collection, od.trace):
            handler = make()
            collection = library.collection(library.Asked(library.Model()), handlers=[handler])
            run(trace(collection).ask(library.LOANED, return_natural_response=True))
            texts.append(read(handler))
        return texts

    return saying


def test_the_buffer_s(said):
    make = need("dbally.audit.event_handlers.buffer_event_handler").BufferEventHandler
    plain, traced = said(make, lambda handler: handler.buffer.getvalue())
    assert "LLM event starts" in plain
    assert traced == plain


def test_the_terminal_s(said, capsys):
    make = need("dbally.audit").CLIEventHandler
    plain, traced = said(make, lambda _: capsys.readouterr().out)
    assert "REQUEST OUTPUT" in plain
    assert traced == plain


def test_langsmith_s(said, monkeypatch):
    """The real handler, over a stand-in for its SDK."""
    runs = []

    class RunTree:
        def __init__(self, name, **kwargs):
            runs.append(re.sub(r" by .*", "", name))

        def create_child(self, name, **kwargs):
            return RunTree(name)

        def end(self, outputs):
            runs.append(sorted(outputs))

        def post(self, *, exclude_child_runs):
            runs.append("posted")

    langsmith, client, trees = (ModuleType(name) for name in ("langsmith", "langsmith.client", "langsmith.run_trees"))
    client.Client, trees.RunTree = (lambda api_key: None), RunTree
    for module in (langsmith, client, trees):
        monkeypatch.setitem(sys.modules, module.__name__, module)
    name = "dbally.audit.event_handlers.langsmith_event_handler"
    monkeypatch.delitem(sys.modules, name, raising=False)
    handlers = need(name)

    def read(_):
        told = list(runs)
        runs.clear()
        return told

    plain, traced = said(handlers.LangSmithEventHandler, read)
    assert plain[0] == "library"
    assert plain[-1] == "posted"
    assert traced == plain
    monkeypatch.delitem(sys.modules, name)
