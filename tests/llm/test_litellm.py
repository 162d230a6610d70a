"""What can be said of the litellm client without litellm: when it is imported, how, and what if it is missing."""

import os
import subprocess
import sys

import pytest

from overcoat.llm import LiteLLM, LiteLLMClient

COST_MAP = "LITELLM_LOCAL_MODEL_COST_MAP"


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """Return what installs a litellm of the given source in place of the real one, for this test."""

    def install(source):
        (tmp_path / "litellm.py").write_text(source)
        monkeypatch.syspath_prepend(tmp_path)
        monkeypatch.delitem(sys.modules, "litellm", raising=False)

    yield install
    sys.modules.pop("litellm", None)


def test_importing_the_classes_imports_no_sdk():
    program = "import overcoat.llm, sys; print({'litellm', 'openai', 'httpx', 'pydantic', 'dbally'} & {*sys.modules})"
    done = subprocess.run([sys.executable, "-c", program], check=True, stdout=subprocess.PIPE, text=True)
    assert done.stdout == "set()\n"


@pytest.mark.parametrize("made", [LiteLLMClient, LiteLLM])
def test_litellm_is_imported_when_an_object_is_made(installed, monkeypatch, made):
    """And fetches no prices over the network then."""
    installed("import os\nseen = os.environ['LITELLM_LOCAL_MODEL_COST_MAP']")
    monkeypatch.delenv(COST_MAP)
    made("m")
    assert sys.modules["litellm"].seen == "True"


def test_an_application_may_let_litellm_fetch_its_prices(installed, monkeypatch):
    installed("")
    monkeypatch.setenv(COST_MAP, "False")
    LiteLLMClient("m")
    assert os.environ[COST_MAP] == "False"


@pytest.mark.parametrize("made", [LiteLLMClient, LiteLLM])
def test_without_litellm_the_extra_is_named(monkeypatch, made):
    monkeypatch.setitem(sys.modules, "litellm", None)
    with pytest.raises(ImportError, match=r"pip install 'overcoat\[litellm\]'") as raised:
        made("m")
    assert raised.value.name == "litellm"


def test_a_broken_litellm_says_itself_what_it_lacks(installed):
    installed("import no_such_module")
    with pytest.raises(ModuleNotFoundError, match="no_such_module"):
        LiteLLMClient("m")


def test_no_repr_shows_the_key(installed):
    installed("")
    keyed = {"base_url": "http://proxy", "api_key": "sk-secret", "api_version": "2"}
    client = LiteLLMClient("m", **keyed)
    assert repr(client) == "LiteLLMClient(model_name='m', base_url='http://proxy', api_version='2')"
    assert (client.model_name, client.base_url, client.api_key, client.api_version) == ("m", *keyed.values())
    llm = LiteLLM("m", **keyed)
    assert repr(llm.client) == repr(client)
    assert "secret" not in repr(llm)


def test_the_client_of_an_llm_is_always_the_same(installed):
    """db-ally makes a new one for every call, in which no layer could keep anything."""
    installed("")
    llm = LiteLLM("m")
    assert llm.client is llm.client
