"""What spans, events and metrics say of a provider, an inference, an attempt and a wait, by the conventions' names."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple, cast

from overcoat.accounting import Usage
from overcoat.layer import Client, Request
from overcoat.models import parse_model
from overcoat.options import Uncacheable, given_options
from overcoat.record import Attempt, Inference, Wait
from overcoat.telemetry import names

Attributes = dict[str, Any]
_NUMBERS = (int, float)


class Target(NamedTuple):
    """What is known of the provider before any call, as the attributes that samplers and metrics see.

    Attributes:
        model: The client's name for it; None where it has none.
        name: Of the span.
        attributes: Never to be changed: every span and every series begins with them.
    """

    model: str | None
    name: str
    attributes: Mapping[str, Any]

    @classmethod
    def of(cls, client: Client) -> Target:
        """Read *client*'s `model_name` and `base_url`."""
        model = getattr(client, "model_name", None)
        provider, _ = parse_model(model) if isinstance(model, str) else (None, None)
        attributes: Attributes = {
            names.OPERATION_NAME: names.OPERATION_CHAT,
            names.PROVIDER_NAME: provider or type(client).__name__,
        }
        if isinstance(model, str):
            attributes[names.REQUEST_MODEL] = model
        if base_url := getattr(client, "base_url", None):
            from urllib.parse import urlsplit  # noqa: PLC0415 - 2 ms, for clients that know their endpoint

            url = urlsplit(str(base_url))
            if url.hostname:
                attributes[names.SERVER_ADDRESS] = url.hostname
                attributes[names.SERVER_PORT] = url.port or (80 if url.scheme == "http" else 443)
        return cls(model, f"{names.OPERATION_CHAT} {model}" if model else names.OPERATION_CHAT, attributes)


def of_inference(request: Request, inference: Inference, usage: Usage | None, answer: Attempt | None) -> Attributes:
    """Return what is known of *inference* when it is over; *answer* is the attempt that answered it."""
    attributes = of_options(request.options)
    if usage is not None:
        _put_usage(attributes, usage)
    if (cost := inference.cost) is not None:
        attributes[names.COST] = float(cost)
    for attempt in inference.attempts:
        if attempt.anomaly is not None:
            attributes[names.USAGE_ANOMALY] = attempt.anomaly
        if attempt.upper_bound:
            attributes[names.COST_UPPER_BOUND] = True
    if answer is not None:
        if answer.response_model is not None:
            attributes[names.RESPONSE_MODEL] = answer.response_model
        if answer.response_id is not None:
            attributes[names.RESPONSE_ID] = answer.response_id
        if answer.finish_reason is not None:
            attributes[names.FINISH_REASONS] = (answer.finish_reason,)
    if inference.error_type is not None:
        attributes[names.ERROR_TYPE] = inference.error_type
    return attributes


def _put_usage(attributes: Attributes, usage: Usage) -> None:
    if usage.input_tokens is not None:
        attributes[names.INPUT_TOKENS] = usage.input_tokens
    if usage.output_tokens is not None:
        attributes[names.OUTPUT_TOKENS] = usage.output_tokens
    if usage.cache_read_input_tokens is not None:
        attributes[names.CACHE_READ_INPUT_TOKENS] = usage.cache_read_input_tokens
    if usage.cache_creation_input_tokens is not None:
        attributes[names.CACHE_CREATION_INPUT_TOKENS] = usage.cache_creation_input_tokens
    if usage.reasoning_output_tokens is not None:
        attributes[names.REASONING_OUTPUT_TOKENS] = usage.reasoning_output_tokens


def of_options(options: Any) -> Attributes:
    """Return the options of a request that the conventions have attributes for, where they are of the right type.

    What was not given is not: None, and db-ally's NOT_GIVEN, are of other types.
    """
    attributes: Attributes = {}
    given = _given(options)
    for name, (attribute, kind) in names.REQUEST_OPTIONS.items():
        value: Any = given.get(name)
        if type(value) in _NUMBERS and not (value == 1 and name == "n"):
            attributes[attribute] = kind(value)
    stop = given.get("stop")
    if isinstance(stop, (str, list, tuple)):
        attributes[names.STOP_SEQUENCES] = (stop,) if isinstance(stop, str) else tuple(cast("list[str]", stop))
    return attributes


def _given(options: Any) -> Mapping[str, Any]:
    if isinstance(options, Mapping):
        return cast("Mapping[str, Any]", options)
    try:
        # To list the fields of a dataclass, as options are, would take three times as long.
        return cast("Mapping[str, Any]", vars(options))
    except TypeError:
        pass
    try:
        return given_options(options)
    except Uncacheable:
        return {}


def of_attempt(attempt: Attempt) -> Attributes:
    """Return what is known of *attempt* when it begins; never `gen_ai.*`, or it would be taken for an inference."""
    attributes: Attributes = {names.ATTEMPT_NUMBER: attempt.number}
    if attempt.number > 1:
        attributes[names.HTTP_RESEND_COUNT] = attempt.number - 1
    return attributes


def of_wait(wait: Wait) -> Attributes:
    """Return whose idea *wait* was, and how long was asked for."""
    attributes: Attributes = {names.WAIT_SOURCE: wait.source}
    if wait.asked is not None:
        attributes[names.WAIT_ASKED] = wait.asked
    return attributes
