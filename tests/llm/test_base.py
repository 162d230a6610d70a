"""A custom LLM as db-ally's documentation writes it."""

import asyncio
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import cached_property

import pytest

from overcoat.errors import LLMError
from overcoat.llm import LLM, NOT_GIVEN, LLMClient, LLMEvent, LLMOptions, PromptTemplate

PROMPT = PromptTemplate([{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Why?"}])


@dataclass
class MyOptions(LLMOptions):
    temperature: object = NOT_GIVEN
    top_p: object = NOT_GIVEN


class MyClient(LLMClient[MyOptions]):
    """Answers with what it got."""

    def __init__(self, model_name):
        super().__init__(model_name)
        self.calls = []
        self.error = None

    async def call(self, conversation, options, event, json_mode=False):
        self.calls.append((conversation, options, json_mode))
        event.prompt_tokens = 7
        if self.error:
            raise self.error
        return f"{self.model_name}: because"


class MyLLM(LLM[MyOptions]):
    _options_cls = MyOptions

    @cached_property
    def client(self):
        return MyClient(self.model_name)


class Tracker:
    """The part of db-ally's event tracker that matters, with a log."""

    def __init__(self):
        self.log = []

    @asynccontextmanager
    async def track_event(self, event):
        self.log.append(("start", event.prompt, event.type, event.response))
        try:
            yield lambda ended: self.log.append(("end", ended.response, ended.prompt_tokens))
        except LLMError as error:
            self.log.append(("error", error.message))
            raise


def test_a_prompt_is_answered():
    llm = MyLLM("m", MyOptions(temperature=1, top_p=0.5))
    assert asyncio.run(llm.generate_text(PROMPT, options=MyOptions(temperature=0))) == "m: because"
    assert llm.client.calls == [(PROMPT.chat, MyOptions(temperature=0, top_p=0.5), False)]


def test_without_options_the_default_ones_hold():
    llm = MyLLM("m")
    asyncio.run(llm.generate_text(PROMPT))
    assert llm.client.calls == [(PROMPT.chat, MyOptions(), False)]


def test_json_mode_comes_from_the_prompt():
    llm = MyLLM("m")
    asyncio.run(llm.generate_text(PromptTemplate(PROMPT.chat, json_mode=True)))
    assert llm.client.calls[0][2] is True


def test_an_event_tracker_sees_the_call_begin_and_end():
    tracker = Tracker()
    asyncio.run(MyLLM("m").generate_text(PROMPT, event_tracker=tracker))
    assert tracker.log == [("start", PROMPT.chat, "PromptTemplate", None), ("end", "m: because", 7)]


def test_an_event_tracker_sees_the_call_fail():
    llm, tracker = MyLLM("m"), Tracker()
    llm.client.error = LLMError("broken")
    with pytest.raises(LLMError, match="broken"):
        asyncio.run(llm.generate_text(PROMPT, event_tracker=tracker))
    assert tracker.log[1:] == [("error", "broken")]


def test_an_event_knows_nothing_before_the_call():
    event = LLMEvent(prompt=PROMPT.chat, type="PromptTemplate")
    unknown = {name for name, value in vars(event).items() if value is None}
    assert unknown == {
        "response",
        "completion_tokens",
        "prompt_tokens",
        "total_tokens",
        "finish_reason",
        "response_id",
        "response_model",
        "cached_tokens",
        "cache_creation_tokens",
        "reasoning_tokens",
        "cache_creation_1h_tokens",
        "audio_input_tokens",
        "audio_output_tokens",
        "service_tier",
        "rate_limit_headers",
    }


def test_tokens_are_characters_unless_a_tokenizer_is_given():
    assert MyLLM("m").count_tokens(PROMPT) == len("Be brief.Why?")


def test_an_llm_shows_its_model_and_options():
    assert (
        repr(MyLLM("m")) == "MyLLM(model_name='m', default_options=MyOptions(temperature=NOT_GIVEN, top_p=NOT_GIVEN))"
    )


def test_a_class_without_options_is_refused_when_it_is_defined():
    """With db-ally's own words."""
    with pytest.raises(TypeError, match="Class Bare is missing the '_options_cls' attribute"):

        class Bare(LLM[MyOptions]):
            pass


def test_options_without_fields_are_refused_when_they_are_used():
    """As when the decorator was forgotten, which makes them options that cannot be set."""

    class Forgotten(LLMOptions):
        temperature: object = NOT_GIVEN

    for options_cls in (Forgotten, LLMOptions, dict, MyOptions()):
        with pytest.raises(TypeError, match=r"Odd\._options_cls=.*expected a @dataclass derived from LLMOptions"):
            type("Odd", (LLM,), {"_options_cls": options_cls})


def test_an_llm_without_a_client_is_refused_when_it_is_made():
    """db-ally's is made, and then calls None: its cached_property forgets that it is abstract."""

    class Clientless(LLM[MyOptions]):
        _options_cls = MyOptions

    with pytest.raises(TypeError, match=r"abstract.*client"):
        Clientless("m")


@pytest.mark.parametrize("made", [MyClient, MyLLM])
def test_a_model_has_a_name(made):
    with pytest.raises(TypeError, match=rf"{made.__name__}\(model_name=None\): expected a string"):
        made(None)
    with pytest.raises(ValueError, match=rf"{made.__name__}\(model_name=' '\): expected the name of a model"):
        made(" ")


def test_what_are_no_options_is_refused_before_the_call():
    llm = MyLLM("m")
    for options in ({"temperature": 1}, MyOptions):
        with pytest.raises(TypeError, match=r"default_options=.*expected an instance of LLMOptions"):
            MyLLM("m", options)
        with pytest.raises(TypeError, match=r"^options=.*expected an instance of LLMOptions"):
            asyncio.run(llm.generate_text(PROMPT, options=options))
    assert llm.client.calls == []


def test_what_is_no_prompt_is_refused_before_the_call():
    llm = MyLLM("m")
    with pytest.raises(TypeError, match=r"generate_text\(prompt='Why\?'\): expected a PromptTemplate"):
        asyncio.run(llm.generate_text("Why?"))
    assert llm.client.calls == []
