"""Every span, attribute and metric name that overcoat emits.

`gen_ai.*`, `server.*`, `error.*` and `http.*` are those of OpenTelemetry's semantic conventions 1.41; what they lack is
under `overcoat.`.
"""

from __future__ import annotations

from typing import Final

SCHEMA_URL: Final = "https://opentelemetry.io/schemas/1.41.0"

# Spans. That of an inference is named "chat {gen_ai.request.model}" by the conventions.
SPAN_CALL: Final = "overcoat.call"
SPAN_CACHE: Final = "cache.get"
SPAN_ATTEMPT: Final = "attempt"
SPAN_BACKOFF: Final = "backoff"
SPAN_RATE_LIMIT: Final = "rate_limit.wait"
SPAN_BUDGET: Final = "budget.wait"
OPERATION_CHAT: Final = "chat"

# Attributes of the conventions.
OPERATION_NAME: Final = "gen_ai.operation.name"
PROVIDER_NAME: Final = "gen_ai.provider.name"
REQUEST_MODEL: Final = "gen_ai.request.model"
RESPONSE_MODEL: Final = "gen_ai.response.model"
RESPONSE_ID: Final = "gen_ai.response.id"
FINISH_REASONS: Final = "gen_ai.response.finish_reasons"
OUTPUT_TYPE: Final = "gen_ai.output.type"
INPUT_TOKENS: Final = "gen_ai.usage.input_tokens"
OUTPUT_TOKENS: Final = "gen_ai.usage.output_tokens"
CACHE_READ_INPUT_TOKENS: Final = "gen_ai.usage.cache_read.input_tokens"
CACHE_CREATION_INPUT_TOKENS: Final = "gen_ai.usage.cache_creation.input_tokens"
REASONING_OUTPUT_TOKENS: Final = "gen_ai.usage.reasoning.output_tokens"
TOKEN_TYPE: Final = "gen_ai.token.type"  # noqa: S105 - a kind of token, not a secret
SERVER_ADDRESS: Final = "server.address"
SERVER_PORT: Final = "server.port"
ERROR_TYPE: Final = "error.type"
HTTP_STATUS: Final = "http.response.status_code"
HTTP_RESEND_COUNT: Final = "http.request.resend_count"

# Options of a request, by the name that clients give them; the conventions' type beside it.
REQUEST_OPTIONS: Final = {
    "frequency_penalty": ("gen_ai.request.frequency_penalty", float),
    "max_completion_tokens": ("gen_ai.request.max_tokens", int),  # OpenAI's newer word for the next
    "max_tokens": ("gen_ai.request.max_tokens", int),
    "n": ("gen_ai.request.choice.count", int),
    "presence_penalty": ("gen_ai.request.presence_penalty", float),
    "seed": ("gen_ai.request.seed", int),
    "temperature": ("gen_ai.request.temperature", float),
    "top_k": ("gen_ai.request.top_k", float),
    "top_p": ("gen_ai.request.top_p", float),
}
STOP_SEQUENCES: Final = "gen_ai.request.stop_sequences"

# Where contents are captured.
INPUT_MESSAGES: Final = "gen_ai.input.messages"
OUTPUT_MESSAGES: Final = "gen_ai.output.messages"

# Log events of the conventions.
EVENT_EXCEPTION: Final = "gen_ai.client.operation.exception"
EVENT_DETAILS: Final = "gen_ai.client.inference.operation.details"
EXCEPTION_TYPE: Final = "exception.type"
EXCEPTION_MESSAGE: Final = "exception.message"

# Attributes of our own, on the call span unless it says otherwise.
MODEL: Final = "overcoat.model"
POLICY: Final = "overcoat.policy"
POLICY_DIGEST: Final = "overcoat.policy.digest"
POLICY_RELOAD: Final = "overcoat.policy.reload.result"  # on the first call after its file changed: applied, rejected
OUTCOME: Final = "overcoat.outcome"
ATTEMPTS: Final = "overcoat.attempts"
RETRIED: Final = "overcoat.retried"
GAVE_UP: Final = "overcoat.gave_up"
LAYER: Final = "overcoat.layer"  # of a metric only: rate_limit, breaker, retry
DEGRADED: Final = "overcoat.degraded"  # whose shared store could not be reached, such as "breaker,rate_limit"
DURATION: Final = "overcoat.duration"  # on log lines only: seconds
ROLE: Final = "overcoat.inference.role"  # on chat: why there is another inference: reask, fallback, hedge
CIRCUIT: Final = "overcoat.breaker.circuit"  # which circuit the call turned, and to which state
CIRCUIT_STATE: Final = "overcoat.breaker.state"
BUDGET_NAME: Final = "overcoat.budget.name"  # of the limit that had most to say; never whose it is
BUDGET_WINDOW: Final = "overcoat.budget.window"  # on metrics
BUDGET_RESULT: Final = "overcoat.budget.result"
BUDGET_REASON: Final = "overcoat.budget.reason"
BUDGET_ALERT: Final = "overcoat.budget.alert"  # the share of a limit, in percent, that the call made known
CACHE_RESULT: Final = "overcoat.cache.result"  # and on cache.get
CACHE_REASON: Final = "overcoat.cache.reason"
STORE_OPERATION: Final = "overcoat.cache.store.operation"  # of a metric: read, write, delete, lease, release
CACHE_AGE: Final = "overcoat.cache.age"  # on cache.get: seconds
COST: Final = "overcoat.cost.usd"  # and on chat: that inference's
COST_SAVED: Final = "overcoat.cost.saved_usd"
COST_WASTED: Final = "overcoat.cost.wasted_usd"
COST_TIER: Final = "overcoat.cost.tier"
COST_UPPER_BOUND: Final = "overcoat.cost.upper_bound"  # and on chat: a client hides what may be cheaper
USAGE_ANOMALY: Final = "overcoat.usage.anomaly"  # on chat, and on its metric: what was wrong with the counts
TAG: Final = "overcoat.tag."  # and on metrics, of the tags that `Trace(metric_tags=...)` lists
TOKEN_KIND: Final = "overcoat.token.type"  # noqa: S105 - of a metric only: input, output
ATTEMPT_NUMBER: Final = "overcoat.attempt.number"  # on attempt
WAIT_ASKED: Final = "overcoat.wait.asked"  # on backoff: seconds
WAIT_SOURCE: Final = "overcoat.wait.source"  # on backoff, rate_limit.wait, budget.wait: policy, server, limiter, budget

# Metrics of the conventions, with their bucket bounds.
OPERATION_DURATION: Final = "gen_ai.client.operation.duration"
TOKEN_USAGE: Final = "gen_ai.client.token.usage"  # noqa: S105
DURATION_BOUNDS: Final = (0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92)
TOKEN_BOUNDS: Final = tuple(4.0**power for power in range(14))

# Metrics of our own. Their units make Prometheus names without ratios or repetitions.
METRIC_CALLS: Final = "overcoat.calls"
METRIC_ATTEMPTS: Final = "overcoat.attempts"
METRIC_ATTEMPT_TIME: Final = "overcoat.attempt.time"
METRIC_DEGRADED: Final = "overcoat.store.degraded"
METRIC_ATTEMPT_DURATION: Final = "overcoat.attempt.duration"
METRIC_INFERENCES: Final = "overcoat.inferences"
METRIC_TOKENS: Final = "overcoat.tokens"
METRIC_GIVE_UPS: Final = "overcoat.retry.give_ups"
METRIC_RELOADS: Final = "overcoat.policy.reloads"
METRIC_TURNS: Final = "overcoat.breaker.turns"
METRIC_WAITED: Final = "overcoat.wait.time"
METRIC_CACHE: Final = "overcoat.cache.requests"
METRIC_STORE_FAILURES: Final = "overcoat.cache.store.failures"
METRIC_COST_BILLED: Final = "overcoat.cost.billed"
METRIC_COST_SAVED: Final = "overcoat.cost.saved"
METRIC_COST_WASTED: Final = "overcoat.cost.wasted"  # a part of what is billed
METRIC_UNPRICED: Final = "overcoat.cost.unknown"
METRIC_ANOMALIES: Final = "overcoat.usage.anomalies"
METRIC_BUDGET_LIMIT: Final = "overcoat.budget.limit"
METRIC_BUDGET_USED: Final = "overcoat.budget.used"
METRIC_BUDGET_OVERRUN: Final = "overcoat.budget.overrun"
METRIC_BUDGET_TOKEN_LIMIT: Final = "overcoat.budget.token_limit"  # noqa: S105 - tokens of a model
METRIC_BUDGET_TOKENS_USED: Final = "overcoat.budget.tokens_used"
METRIC_BUDGET_TOKEN_OVERRUN: Final = "overcoat.budget.token_overrun"  # noqa: S105
METRIC_BUDGET_REFUSALS: Final = "overcoat.budget.refusals"
METRIC_BUDGET_UNCHECKED: Final = "overcoat.budget.unchecked"
METRIC_BUDGET_ALERTS: Final = "overcoat.budget.alerts"
