"""The most that a request can use and cost, said before it is sent: what a budget sets aside for it."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING, Any, cast

from overcoat.arithmetic.dollars import EXACT
from overcoat.options import Uncacheable, given_options
from overcoat.pricing.rates import DISCOUNTED, STANDARD, Rates, Tier

if TYPE_CHECKING:
    from overcoat.layer import Request
    from overcoat.pricing.tokens import TokenCounter

LONGEST_ANSWER = 10_000_000
"""Tokens: several times the longest context there is. A caller may ask for more, and cannot get it."""

# What chat templates put around messages, and providers around tools and schemas, is not ours to see. The most that is
# documented: 4 tokens a message (OpenAI's cookbook) and some 70 of a hidden system message (gpt-oss); 804 for tools
# (Anthropic, "Tool use", pricing). Half as much again is added to each.
_A_REQUEST = 100
_A_MESSAGE = 8
_TOOLS = 1200

_OUTPUT_LIMITS = frozenset({"max_tokens", "max_completion_tokens", "max_output_tokens"})
_ANSWERS = frozenset({"n", "best_of"})
_SOUND = frozenset({"modalities", "audio"})
_TEXT = ("text", "input_text", "output_text")
_FREE = Decimal(0)


@dataclass(slots=True)
class Estimate:
    """How much a request can use and cost at most; it is read once, for all limits of a budget.

    Attributes:
        tokens: The most that its texts can be.
        text_only: Whether there is nothing but text.
        cache_control: Whether it tells the provider what to cache.
        speaks: Whether it asks for an answer that is not text.
        longest: How long an answer may be; None where it does not say.
        answers: How many it asks for.
        service: How it wants to be served, by the provider's name.
    """

    tokens: int = _A_REQUEST
    text_only: bool = True
    cache_control: bool = False
    speaks: bool = False
    longest: int | None = None
    answers: int = 1
    service: object = None

    @classmethod
    def of(cls, request: Request, counter: TokenCounter | None = None) -> Estimate:
        """Read what is to be sent.

        Args:
            request: A token of it is taken to be a byte, which no tokenizer on bytes exceeds.
            counter: Counts texts in place of their bytes, where it says that it is exact.
        """
        estimate = cls()
        tokens_of = counter.count_text if counter is not None and counter.exact else _bytes
        conversation: Sequence[Mapping[str, Any]] = request.conversation
        for message in conversation:
            estimate.tokens += _A_MESSAGE
            content = message["content"]
            if isinstance(content, str):
                estimate.tokens += tokens_of(content)
            else:
                estimate._content(content)
            if len(message) > 2:  # names, tool calls
                rest = {name: value for name, value in message.items() if name not in ("role", "content")}
                estimate.tokens += estimate._bytes_of(rest)
        estimate._options(request)
        return estimate

    def input_tokens(self, rates: Rates | None = None) -> int | None:
        """Return the most tokens that the provider can count in what is sent; None where nothing bounds it.

        That is all texts, tools and other options, and what templates add. Images, audio and files count as the model's
        whole context window, which *rates* may say.
        """
        if self.text_only:
            return self.tokens
        window = rates.context_window if rates is not None else None
        return None if window is None else max(window, self.tokens)

    def output_tokens(self, rates: Rates | None = None, *, default: int) -> int:
        """Return the most tokens that all answers can have together, reasoning included.

        Args:
            rates: Of the model, for what it can answer at the most.
            default: How long an answer may be where the request does not say.
        """
        most = min(LONGEST_ANSWER, default if self.longest is None else self.longest)
        if rates is not None:
            for ceiling in (rates.max_output_tokens, rates.context_window):
                if ceiling is not None and ceiling < most:
                    most = ceiling
        return most * self.answers

    def all_tokens(self, rates: Rates | None = None, *, default: int) -> int | None:
        """Return the most tokens that can be used, sent and answered; None where nothing bounds them."""
        tokens_in = self.input_tokens(rates)
        return None if tokens_in is None else tokens_in + self.output_tokens(rates, default=default)

    def dollars(self, rates: Rates, *, default: int) -> Decimal | None:
        """Return the most dollars that sending it once can cost; no usage within its limits costs more.

        Every token is taken to be of the dearest kind that it can be, in the dearest tier that can be reached: written
        to the cache, or spent on reasoning.

        Returns:
            None where nothing bounds it, or a rate that may be needed is not known.
        """
        tokens_in, tokens_out = self.input_tokens(rates), self.output_tokens(rates, default=default)
        tables = _tables(rates, self.service)
        if tokens_in is None or tables is None:
            return None
        tiers = [tier for table in tables for tier in table if tier.above < max(tokens_in, 1)]
        others_in = ["cache_creation_1h"] if self.cache_control else []
        if not self.text_only:
            others_in.append("audio_input")
        total = rates.per_request
        for tokens, plain, others in (
            (tokens_in, "dearest_input", others_in),
            (tokens_out, "dearest_output", ["audio_output"] if self.speaks else []),
        ):
            if tokens:
                rate = _dearest(tiers, plain, others)
                if rate is None:
                    return None
                total = EXACT.fma(tokens, rate, total)
        return total

    def _content(self, content: Any) -> None:
        if content is None:
            return
        parts = cast("Sequence[object]", content) if isinstance(content, (list, tuple)) else (content,)
        for part in parts:
            if _is_text(part):
                self.tokens += self._bytes_of(part)
            else:
                self.text_only = False

    def _options(self, request: Request) -> None:
        structured = request.json_mode
        given = _options(request)
        self.service = given.get("service_tier")
        for name, value in given.items():
            if isinstance(value, (int, float)):  # as nearly all are; what no provider takes for a limit is none
                if type(value) is int and value > 0:
                    if name in _OUTPUT_LIMITS:
                        self.longest = max(self.longest or 0, value)
                    elif name in _ANSWERS:
                        self.answers = max(self.answers, value)
            elif name in _SOUND:
                self.speaks = True
            elif isinstance(value, (str, list, tuple, Mapping)):
                structured = structured or not isinstance(value, str)
                self.tokens += self._bytes_of(cast("Any", value))
        if structured:
            self.tokens += _TOOLS

    def _bytes_of(self, value: object) -> int:
        """Return the bytes of what *value* is in JSON, or a little more."""
        if isinstance(value, str):
            return _bytes(value) + 2
        if isinstance(value, Mapping):
            self.cache_control = self.cache_control or "cache_control" in value
            entries = cast("Mapping[object, object]", value)
            return 2 + sum(self._bytes_of(key) + self._bytes_of(item) + 4 for key, item in entries.items())
        if isinstance(value, (list, tuple)):
            return 2 + sum(self._bytes_of(item) + 2 for item in cast("Sequence[object]", value))
        if isinstance(value, int):
            return value.bit_length() // 3 + 5
        if value is not None and not isinstance(value, float):
            self.text_only = False  # a class of the SDK's: what it sends is not ours to see
        return 24


def _is_text(part: object) -> bool:
    if isinstance(part, Mapping):
        return cast("Mapping[str, object]", part).get("type") in _TEXT
    return isinstance(part, str)


def _bytes(text: str) -> int:
    """Return the bytes of *text* in UTF-8, or of its normal form where that is longer: some tokenizers normalise."""
    if text.isascii():
        return len(text)
    # A ligature of 3 bytes can be 33 in the compatibility form; lone surrogates are nothing to fail at here.
    forms = (text, unicodedata.normalize("NFKC", text))
    return max(len(form.encode("utf-8", "surrogatepass")) for form in forms)


def _tables(rates: Rates, service: object) -> Sequence[tuple[Tier, ...]] | None:
    """Return the tables that may price a request; a service that has no room may be replaced by the standard one."""
    if service == "auto":
        return [rates.tiers, *rates.services.values()]
    if not isinstance(service, str) or service in STANDARD or service in DISCOUNTED:
        return [rates.tiers]
    return [rates.tiers, rates.services[service]] if service in rates.services else None


def _dearest(tiers: Sequence[Tier], plain: str, others: Sequence[str]) -> Decimal | None:
    """Return the highest rate in *tiers*, that of the *others* included; None where a plain one is not known."""
    most = _FREE
    for tier in tiers:
        rate: Decimal | None = getattr(tier, plain)
        if rate is None:
            return None
        most = max(most, rate)
        for kind in others:
            most = max(most, getattr(tier, kind) or _FREE)
    return most


def _options(request: Request) -> Mapping[str, Any]:
    try:
        return given_options(request.options)
    except Uncacheable:
        return {}
