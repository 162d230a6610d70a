"""Holds the how-to to the original: prompts, options and tracking are db-ally's, but where they say otherwise."""

import asyncio
import itertools
from dataclasses import asdict, fields

import pytest
from hypothesis import given
from hypothesis import strategies as st

from overcoat.errors import PromptTemplateError
from overcoat.llm import LLM, FewShotExample, LiteLLMOptions, LLMEvent, PromptFormat, PromptTemplate

from .parts import need

roles = st.lists(st.sampled_from(["system", "user", "assistant", "tool"]), max_size=6)
ROLES_IN_TURN = [
    [role for role, _ in zip(itertools.chain(first, itertools.cycle(turns)), range(length), strict=False)]
    for first, turns in ([["system"], ["user", "assistant"]], [[], ["assistant", "user"]])
    for length in range(1, 7)
]
chats = (roles | st.sampled_from(ROLES_IN_TURN)).map(
    lambda drawn: [{"role": role, "content": f"{index} {{x}}"} for index, role in enumerate(drawn)]
)
texts = st.text("abc ", max_size=3)


@pytest.fixture(scope="module")
def template():
    return need("dbally.prompt.template")


def accepted(make, error):
    """Return what is made, or None where it is refused."""
    try:
        return make()
    except error:
        return None


@given(chat=chats)
def test_the_same_chats_are_accepted(template, chat):
    """But for a lone system message, on which db-ally fails by accident."""
    ours = accepted(lambda: PromptTemplate(chat), PromptTemplateError)
    theirs = accepted(lambda: template.PromptTemplate(chat), (template.PromptTemplateError, UnboundLocalError))
    assert (ours is None) == (theirs is None)


@given(chat=chats, content=texts, method=st.sampled_from(["add_user_message", "add_assistant_message"]))
def test_the_same_turns_are_added(template, chat, content, method):
    ours = accepted(lambda: getattr(PromptTemplate(chat), method)(content).chat, PromptTemplateError)
    theirs = accepted(
        lambda: getattr(template.PromptTemplate(chat), method)(content).chat,
        (template.PromptTemplateError, UnboundLocalError),
    )
    assert ours == theirs


@given(chat=chats.filter(bool), content=texts)
def test_only_ours_can_set_the_system_message(template, chat, content):
    """Should db-ally's succeed one day, ours has to give the same."""
    with pytest.raises((template.PromptTemplateError, UnboundLocalError)):
        template.PromptTemplate(chat).set_system_message(content)
    if chat[0]["role"] == "system" and (ours := accepted(lambda: PromptTemplate(chat), PromptTemplateError)):
        assert ours.set_system_message(content).chat == [{"role": "system", "content": content}, *chat[1:]]


@given(
    chat=st.sampled_from(ROLES_IN_TURN),
    contents=st.lists(st.sampled_from(["{x}", "a {x}", "b", "{{y}}", "{z}"]), min_size=6, max_size=6),
    shots=st.lists(st.tuples(texts, texts), max_size=2),
)
def test_prompts_are_filled_in_to_the_same_messages(template, chat, contents, shots):
    """And are refused for the same placeholders; db-ally marks each message as an example or not, ours does not."""
    if chat == ["system"]:
        chat = ["system", "user"]
    messages = [{"role": role, "content": content} for role, content in zip(chat, contents, strict=False)]
    elements = need("dbally.prompt.elements")
    ours, theirs = PromptFormat(), template.PromptFormat()
    ours.examples = [FewShotExample(*shot) for shot in shots]
    theirs.examples = [elements.FewShotExample(*shot) for shot in shots]
    ours.x = theirs.x = "X"
    filled = accepted(lambda: PromptTemplate(messages).format_prompt(ours).chat, PromptTemplateError)
    expected = accepted(lambda: template.PromptTemplate(messages).format_prompt(theirs).chat, KeyError)
    assert filled == (expected and [{name: message[name] for name in ("role", "content")} for message in expected])
    assert filled == accepted(lambda: PromptTemplate(messages).format_prompt(theirs).chat, PromptTemplateError)


@given(data=st.data())
def test_options_are_merged_to_the_same_values(data):
    original = need("dbally.llms.clients.litellm").LiteLLMOptions
    given_options = st.dictionaries(
        st.sampled_from([field.name for field in fields(original)]), st.sampled_from([None, 0, 1])
    )
    left, right = data.draw(given_options), data.draw(given_options)
    ours = (LiteLLMOptions(**left) | LiteLLMOptions(**right)).dict()
    assert ours.pop("timeout") is None
    assert ours == (original(**left) | original(**right)).dict()


def test_our_event_has_the_fields_of_the_original():
    original = need("dbally.audit.events").LLMEvent(prompt="p", type="t")
    assert asdict(original).items() <= asdict(LLMEvent(prompt="p", type="t")).items()


def test_an_llm_takes_the_options_prompts_and_trackers_of_the_original():
    """So that code may move over one class at a time."""
    original = need("dbally.llms.clients.litellm").LiteLLMOptions
    seen = []

    class Handler(need("dbally.audit.event_handlers.base").EventHandler):
        async def request_start(self, user_request):
            pass

        async def event_start(self, event, request_context):
            seen.append(event.prompt)

        async def event_end(self, event, event_context, request_context):
            seen.append(event.response)

        async def request_end(self, output, request_context):
            pass

    class Echo:
        async def call(self, conversation, options, event, json_mode=False):
            return f"{options.temperature} {options.seed} {json_mode}"

    class Mixed(LLM):
        _options_cls = original
        client = Echo()

    async def ask():
        tracker = need("dbally.audit.event_tracker").EventTracker.initialize_with_handlers([Handler()])
        await tracker.request_start(None)
        chat = [{"role": "system", "content": "s"}, {"role": "user", "content": "u"}]
        prompt = need("dbally.prompt.template").PromptTemplate(chat, json_mode=True)
        llm = Mixed("m", original(temperature=1, seed=2))
        return await llm.generate_text(prompt, event_tracker=tracker, options=original(seed=3)), chat

    answer, chat = asyncio.run(ask())
    assert answer == "1 3 True"
    assert seen == [chat, answer]
