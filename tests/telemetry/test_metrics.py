"""What is counted: everything from 0 on, tags within bounds, and each attempt's time."""

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor

import pytest
from opentelemetry.sdk.metrics import MeterProvider

from overcoat import Breaker, Cache, Fallback, LLMEvent, LLMStatusError, Meter, Retry, Trace, capture, stack, tags
from overcoat.telemetry import names
from overcoat.telemetry.metrics import MOST_VALUES, Metrics, metrics_of
from overcoat.testing import Answer, InMemoryTelemetry, ScriptedClient, run

DOWN = LLMStatusError("down", 503)
ANSWER = Answer("hi", 10, 2)
MODEL = "openai/gpt-4o-mini"


@pytest.fixture
def telemetry():
    return InMemoryTelemetry()


def traced(telemetry, *steps, layers=(), model=MODEL, **settings):
    providers = {"tracer_provider": telemetry.tracer_provider, "meter_provider": telemetry.meter_provider}
    return stack(ScriptedClient(*steps, model_name=model), Trace(**providers, **settings), *layers)


async def ask(client, text="?"):
    try:
        return await client.call([{"role": "user", "content": text}], None, LLMEvent([], "test"))
    except LLMStatusError:
        return None


def series(telemetry):
    """Every series that there is now, at 0 or not: its metric, its labels and its value."""
    data = telemetry._metrics.get_metrics_data()
    return {
        (metric.name, frozenset(point.attributes.items())): getattr(point, "value", None)
        for resource in (data.resource_metrics if data else ())
        for scope in resource.scope_metrics
        for metric in scope.metrics
        for point in metric.data.data_points
    }


class TestFromZeroOn:
    """`increase()` sees no event that is the first of its series."""

    def test_a_stack_that_was_made_has_all_its_series(self, telemetry):
        traced(telemetry, ANSWER)
        found = series(telemetry)
        # What stores could not do is the process's, and other tests have some that fail.
        assert {value for (metric, _), value in found.items() if metric != names.METRIC_STORE_FAILURES} == {0}
        for metric, labels in (
            (names.METRIC_CALLS, {"overcoat.model": MODEL, "overcoat.outcome": "error"}),
            (names.METRIC_ATTEMPTS, {"overcoat.model": MODEL}),
            (names.METRIC_ATTEMPTS, {"overcoat.model": MODEL, "error.type": "rate_limited"}),
            (names.METRIC_INFERENCES, {"overcoat.model": MODEL, "overcoat.inference.role": "fallback"}),
            (names.METRIC_WAITED, {"overcoat.model": MODEL, "overcoat.wait.source": "server"}),
            (names.METRIC_CACHE, {"overcoat.cache.result": "hit"}),
            (names.METRIC_CACHE, {"overcoat.cache.result": "stale", "overcoat.cache.reason": "if_error"}),
            (names.METRIC_COST_WASTED, {"overcoat.model": MODEL}),
            (names.METRIC_UNPRICED, {"overcoat.model": MODEL}),
            (names.METRIC_STORE_FAILURES, {"overcoat.cache.store.operation": "read"}),
            (names.METRIC_RELOADS, {"overcoat.policy.reload.result": "rejected"}),
        ):
            assert (metric, frozenset(labels.items())) in found, metric

    def test_what_then_happens_makes_no_series_but_of_budgets_and_give_ups(self, telemetry):
        client = traced(
            telemetry, DOWN, ANSWER, LLMStatusError("no", 401), layers=[Cache(), Retry(max_attempts=2), Meter()]
        )
        before = series(telemetry).keys()
        for text in ("a", "a", "b"):
            run(ask(client, text))
        made = {metric for metric, _ in series(telemetry).keys() - before}
        assert made == {names.OPERATION_DURATION, names.TOKEN_USAGE, names.METRIC_GIVE_UPS}

    def test_circuits_are_closed(self, telemetry):
        traced(telemetry, ANSWER, layers=[Breaker()])
        turns = {labels: value for (metric, labels), value in series(telemetry).items() if metric == names.METRIC_TURNS}
        opened = {"overcoat.breaker.circuit": "openai/gpt-4o-mini", "overcoat.breaker.state": "open"}
        assert turns[frozenset(opened.items())] == 0

    def test_a_fallback_s_model_is_known(self, telemetry):
        other = ScriptedClient(ANSWER, model_name="anthropic/claude-3")
        traced(telemetry, DOWN, layers=[Fallback(to=[other])])
        labels = {"overcoat.model": "anthropic/claude-3", "overcoat.outcome": "ok"}
        assert (names.METRIC_CALLS, frozenset(labels.items())) in series(telemetry)

    def test_another_stack_for_the_model_takes_nothing_back(self, telemetry):
        run(ask(traced(telemetry, ANSWER)))
        traced(telemetry, ANSWER)
        assert telemetry.total(names.METRIC_CALLS) == 1


class TestTags:
    def test_those_that_are_listed_are_labels_of_calls_tokens_and_costs(self, telemetry):
        client = traced(telemetry, ANSWER, layers=[Meter()], metric_tags=("feature",))
        with tags(feature="search", tenant="acme"):
            run(ask(client))
        for metric, value in ((names.METRIC_CALLS, 1), (names.METRIC_TOKENS, 12), (names.METRIC_COST_BILLED, 2.7e-6)):
            assert telemetry.total(metric, {"overcoat.tag.feature": "search"}) == pytest.approx(value)
        assert not any("acme" in str(labels) for _, labels in series(telemetry))

    def test_none_is_a_label_that_is_not(self, telemetry):
        with tags(feature="search"):
            run(ask(traced(telemetry, ANSWER)))
        assert not any("search" in str(labels) for _, labels in series(telemetry))

    def test_a_call_without_the_tag_has_no_such_label(self, telemetry):
        run(ask(traced(telemetry, ANSWER, metric_tags=("feature",))))
        (labels,) = telemetry.points(names.METRIC_CALLS)
        assert dict(labels) == {"overcoat.model": MODEL, "overcoat.outcome": "ok"}

    def test_after_a_hundred_values_the_rest_is_one(self, telemetry):
        """Over all stacks of a meter provider: a bound for each would be none."""

        async def main():
            for number in range(MOST_VALUES + 20):
                client = traced(telemetry, ANSWER, metric_tags=("feature",))
                with tags(feature=f"f{number}"):
                    await ask(client)
            with tags(feature="f0"):
                await ask(client)

        run(main())
        points = telemetry.points(names.METRIC_CALLS)
        counted = {dict(labels)["overcoat.tag.feature"]: value for labels, value in points.items()}
        assert len(counted) == MOST_VALUES + 1
        assert (counted["other"], counted["f0"], sum(counted.values())) == (20, 2, MOST_VALUES + 21)

    def test_unlisted_sums_are_the_listed_ones_together(self, telemetry):
        client = traced(telemetry, ANSWER, ANSWER, layers=[Meter()], metric_tags=("feature",))
        with tags(feature="search"):
            run(ask(client))
        run(ask(client))
        assert telemetry.total(names.METRIC_TOKENS, {names.TOKEN_KIND: "input"}) == 20
        assert telemetry.total(names.METRIC_CALLS) == 2


class TestAttempts:
    def test_their_time_is_the_provider_s_own(self, telemetry):
        """Neither the wait between them nor the other's."""
        steps = LLMStatusError("down", 503), Answer("hi", delay=2)
        run(ask(traced(telemetry, *steps, layers=[Retry(max_attempts=2, random=lambda: 0.5)])))
        assert telemetry.total(names.METRIC_ATTEMPT_TIME) == pytest.approx(2)
        assert telemetry.total(names.METRIC_ATTEMPT_TIME, {"error.type": "overloaded"}) == 0

    def test_a_histogram_of_all_where_all_are_asked_for(self, telemetry):
        steps = DOWN, Answer("hi", delay=2)
        run(ask(traced(telemetry, *steps, layers=[Retry(max_attempts=2)], attempts="always")))
        points = {frozenset(labels): point for labels, point in telemetry.points(names.METRIC_ATTEMPT_DURATION).items()}
        answered = points[frozenset({("overcoat.model", MODEL)})]
        failed = points[frozenset({("overcoat.model", MODEL), ("error.type", "overloaded")})]
        assert (answered.count, answered.sum, failed.count) == (1, pytest.approx(2), 1)
        assert answered.explicit_bounds == names.DURATION_BOUNDS
        spans = {span.context.span_id for span in telemetry.named("attempt")}
        assert {exemplar.span_id for point in (answered, failed) for exemplar in point.exemplars} == spans

    def test_and_else_none(self, telemetry):
        run(ask(traced(telemetry, DOWN, ANSWER, layers=[Retry(max_attempts=2)])))
        assert telemetry.points(names.METRIC_ATTEMPT_DURATION) == {}


def test_exemplars_of_inferences_lead_to_their_spans(telemetry):
    run(ask(traced(telemetry, ANSWER)))
    (chat,) = telemetry.named("chat")
    (resource,) = telemetry._metrics.get_metrics_data().resource_metrics
    points = [
        point
        for metric in resource.scope_metrics[0].metrics
        if metric.name in (names.OPERATION_DURATION, names.TOKEN_USAGE)
        for point in metric.data.data_points
    ]
    assert len(points) == 3
    for point in points:
        assert [exemplar.span_id for exemplar in point.exemplars] == [chat.context.span_id]


def test_calls_of_several_threads_are_all_counted(telemetry):
    """An application may have an event loop in each."""
    with capture() as calls:
        run(ask(traced(telemetry, ANSWER, layers=[Meter()])))
    metrics = metrics_of(telemetry.meter_provider)

    def count_some(_):
        for _ in range(2000):
            metrics.count(calls[0])

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)  # so often that sums without a lock lose some
    try:
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(count_some, range(8)))
    finally:
        sys.setswitchinterval(interval)
    assert telemetry.total(names.METRIC_CALLS) == 16_001
    assert telemetry.total(names.METRIC_COST_BILLED) == pytest.approx(16_001 * 2.7e-6)


def test_a_provider_has_one_set_of_instruments_as_long_as_it_is_used():
    provider = MeterProvider(shutdown_on_exit=False)
    assert metrics_of(provider) is metrics_of(provider)
    assert isinstance(metrics_of(None), Metrics)
    assert metrics_of(None) is metrics_of(None)
