"""Custom LLMs as db-ally's documentation writes them, without db-ally: its classes' shape, on every Python.

```python
class MyClient(LLMClient[LiteLLMOptions]):
    async def call(self, conversation, options, event, json_mode=False):
        answer = await my_sdk.chat(conversation, **options.dict())
        event.prompt_tokens, event.completion_tokens = answer.tokens_in, answer.tokens_out
        return answer.text


class MyLLM(LLM[LiteLLMOptions]):
    _options_cls = LiteLLMOptions

    @cached_property
    def client(self):
        return MyClient(self.model_name)


answer = await MyLLM("my-model").generate_text(prompt)
```
"""

from .base import LLM, EventTracker, LLMClient, LLMEvent
from .litellm import LiteLLM, LiteLLMClient, LiteLLMOptions
from .options import NOT_GIVEN, LLMOptions, NotGiven
from .prompt import ChatFormat, FewShotExample, PromptFormat, PromptTemplate

__all__ = [
    "LLM",
    "NOT_GIVEN",
    "ChatFormat",
    "EventTracker",
    "FewShotExample",
    "LLMClient",
    "LLMEvent",
    "LLMOptions",
    "LiteLLM",
    "LiteLLMClient",
    "LiteLLMOptions",
    "NotGiven",
    "PromptFormat",
    "PromptTemplate",
]
