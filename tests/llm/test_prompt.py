"""Prompt templates: turns, filling in, and what is refused."""

import pytest

from overcoat.errors import PromptTemplateError
from overcoat.llm import FewShotExample, PromptFormat, PromptTemplate

SYSTEM = {"role": "system", "content": "Answer in {language}."}
USER = {"role": "user", "content": "{question}"}
ASSISTANT = {"role": "assistant", "content": "Yes."}


class Question(PromptFormat):
    def __init__(self, question, language="French", examples=None):
        super().__init__(examples)
        self.question = question
        self.language = language


def test_a_template_is_filled_in_and_stays_a_template():
    template = PromptTemplate[Question]([SYSTEM, USER], json_mode=True)
    prompt = template.format_prompt(Question("Why?"))
    assert prompt.chat == [
        {"role": "system", "content": "Answer in French."},
        {"role": "user", "content": "Why?"},
    ]
    assert prompt.json_mode
    assert template.chat == [SYSTEM, USER]


def test_examples_become_turns_after_the_system_message():
    prompt = PromptTemplate([SYSTEM, USER]).format_prompt(
        Question("Why?", examples=[FewShotExample("1?", "one"), FewShotExample("2?", "two")])
    )
    assert [message["content"] for message in prompt.chat] == ["Answer in French.", "1?", "one", "2?", "two", "Why?"]
    assert [message["role"] for message in prompt.chat] == ["system", *["user", "assistant"] * 2, "user"]


def test_examples_fill_their_placeholder_wherever_it_stands():
    template = PromptTemplate([{"role": "system", "content": "Such as:\n{examples}"}, USER])
    prompt = template.format_prompt(Question("Why?", examples=[FewShotExample("1?", "one"), "2? -> two"]))
    assert prompt.chat[0]["content"] == "Such as:\n1? -> one\n2? -> two"
    assert len(prompt.chat) == 2


@pytest.mark.parametrize("content", ["{missing}", "{question.missing}", "stray {", "{}"])
def test_what_cannot_be_filled_in_is_named(content):
    template = PromptTemplate([SYSTEM, {"role": "user", "content": content}])
    with pytest.raises(PromptTemplateError, match=r"chat\[1\]=.*cannot be filled in with .*'question'"):
        template.format_prompt(Question("Why?"))


def test_a_prompt_is_filled_in_by_an_object_with_attributes():
    with pytest.raises(TypeError, match=r"prompt_format=5\): expected a PromptFormat"):
        PromptTemplate([SYSTEM, USER]).format_prompt(5)


def test_turns_are_added():
    prompt = PromptTemplate([SYSTEM, USER]).add_assistant_message("Yes.").add_user_message("Sure?")
    assert prompt.chat == [SYSTEM, USER, ASSISTANT, {"role": "user", "content": "Sure?"}]


def test_the_system_message_is_replaced():
    prompt = PromptTemplate([SYSTEM, USER]).set_system_message("Be brief.")
    assert prompt.chat == [{"role": "system", "content": "Be brief."}, USER]


def test_changed_copies_keep_their_class_and_attributes():
    """db-ally makes them by calling the class, which fails for one that is made in another way."""

    class Poem(PromptTemplate[Question]):
        def __init__(self, metre):
            super().__init__([SYSTEM, USER], response_parser=str.upper)
            self.metre = metre

    poem = Poem("iambic").add_assistant_message("So.")
    assert isinstance(poem, Poem)
    assert poem.metre == "iambic"
    assert poem.response_parser("a") == "A"


def test_a_response_is_by_default_parsed_as_itself():
    assert PromptTemplate([SYSTEM, USER]).response_parser("a") == "a"


@pytest.mark.parametrize(
    ("chat", "problem"),
    [
        ([], "expected a turn"),
        ([SYSTEM], "expected a turn"),
        ([USER], "turn of 'assistant'.*put a system message before it"),
        ([SYSTEM, ASSISTANT], r"chat\[1\] is from 'assistant', where it is the turn of 'user'"),
        ([SYSTEM, USER, USER], r"chat\[2\] is from 'user'"),
        ([SYSTEM, USER, SYSTEM], r"chat\[2\] is from 'system': only the first"),
        ([SYSTEM, {"role": "tool", "content": ""}], "from 'tool'"),
    ],
)
def test_turns_out_of_order_are_refused(chat, problem):
    with pytest.raises(PromptTemplateError, match=problem):
        PromptTemplate(chat)


def test_a_turn_out_of_order_is_not_added():
    prompt = PromptTemplate([SYSTEM, USER])
    with pytest.raises(PromptTemplateError):
        prompt.add_user_message("And?")
    with pytest.raises(PromptTemplateError):
        PromptTemplate([ASSISTANT]).set_system_message("Be brief.")
    assert prompt.chat == [SYSTEM, USER]


@pytest.mark.parametrize(
    ("chat", "problem"),
    [
        ("Why?", r"chat='Why\?': expected a list of dicts"),
        ((SYSTEM, USER), "expected a list of dicts"),
        ([SYSTEM, "Why?"], r"chat\[1\]='Why\?': expected a dict with a 'role' and a 'content'"),
        ([{"role": "system"}], r"chat\[0\]"),
        ([{"content": "Why?"}], r"chat\[0\]"),
        ([{"role": 1, "content": "Why?"}], r"chat\[0\]"),
        ([{"role": "system", "content": 1}], r"chat\[0\]"),
    ],
)
def test_what_is_no_chat_is_refused(chat, problem):
    with pytest.raises(TypeError, match=problem):
        PromptTemplate(chat)


def test_prompts_are_equal_by_their_chat():
    """As in db-ally; and they have no hash, since the chat may change."""
    assert PromptTemplate([SYSTEM, USER]) == PromptTemplate([SYSTEM, USER], json_mode=True)
    assert PromptTemplate([SYSTEM, USER]) != PromptTemplate([SYSTEM, USER, ASSISTANT])
    assert PromptTemplate([SYSTEM, USER]) != [SYSTEM, USER]
    with pytest.raises(TypeError, match="unhashable"):
        hash(PromptTemplate([SYSTEM, USER]))
    assert repr(PromptTemplate([ASSISTANT])) == f"PromptTemplate(chat=[{ASSISTANT!r}], json_mode=False)"
