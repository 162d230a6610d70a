"""Malformed policy files, by name: what is in them, and what must be said about them (without the file's name)."""

from __future__ import annotations

YAML: dict[str, tuple[str, list[str]]] = {
    "empty": (
        "",
        ["1:1: it is empty; a policy begins with `version: 1`"],
    ),
    "only_comments": (
        "# nothing\n",
        ["1:1: it is empty; a policy begins with `version: 1`"],
    ),
    "a_list": (
        "- version: 1\n",
        ["1:1: expected a mapping, not a list"],
    ),
    "a_word": (
        "version\n",
        ["1:1: expected a mapping, not 'version'"],
    ),
    "no_version": (
        "policies: {}\n",
        ["1:1: 'version' is missing"],
    ),
    "other_version": (
        "version: 2\n",
        ["1:10: version: expected 1, not 2"],
    ),
    "version_as_text": (
        'version: "1"\n',
        ["1:10: version: expected 1, not '1'"],
    ),
    "unknown_section": (
        """\
version: 1
polices: {}
""",
        ["2:1: polices: unknown key, did you mean 'policies'?"],
    ),
    "unknown_key": (
        """\
version: 1
policies:
  fast:
    retry:
      atempts: 3
""",
        ["5:7: policies.fast.retry.atempts: unknown key, did you mean 'max_attempts'?"],
    ),
    "unknown_key_deep": (
        """\
version: 1
policies:
  fast:
    retry: {backoff: {bsae: 1s}}
""",
        ["4:23: policies.fast.retry.backoff.bsae: unknown key, did you mean 'base'?"],
    ),
    "several_in_one_section": (
        """\
version: 1
breakers:
  b: {window: 30, failure_ratio: 0, min_calls: 0, name: x}
limits:
  l: {requests: 0, tokens: 0}
""",
        [
            '3:15: breakers.b.window: a duration needs a unit; did you mean "30s"?',
            "3:34: breakers.b.failure_ratio: expected a number above 0, and at most 1",
            "3:48: breakers.b.min_calls: expected a whole number of at least 1",
            "3:51: breakers.b.name: only code can give it",
            "5:17: limits.l.requests: expected a whole number of at least 1, or none",
            "5:28: limits.l.tokens: expected a whole number of at least 1, or none",
        ],
    ),
    "no_such_path": (
        """\
version: 1
enforce: {require: [zzz]}
""",
        [
            (
                "2:21: enforce.require[0]: there is no 'zzz'; expected one of attempt_timeout, breaker, budget, cache, "
                "deadline, fallbacks, hedge, limit, meter, retry, spending, trace, validate, or a path below one of "
                "them"
            )
        ],
    ),
    "several_at_once": (
        """\
version: 1
policies:
  fast:
    retry: {atempts: 3, max_attempts: many}
    dedline: 3s
    attempt_timeout: 5
""",
        [
            "4:13: policies.fast.retry.atempts: unknown key, did you mean 'max_attempts'?",
            "4:39: policies.fast.retry.max_attempts: expected a whole number, not 'many'",
            "5:5: policies.fast.dedline: unknown key, did you mean 'deadline'?",
            '6:22: policies.fast.attempt_timeout: a duration needs a unit; did you mean "5s"?',
        ],
    ),
    "other_tools_name": (
        """\
version: 1
policies:
  fast:
    retry: {max_retries: 3}
""",
        ["4:13: policies.fast.retry.max_retries: unknown key, did you mean 'max_attempts'?"],
    ),
    "rpm": (
        """\
version: 1
limits: {a: {rpm: 500}}
""",
        ["2:14: limits.a.rpm: unknown key, did you mean 'requests'?"],
    ),
    "duration_as_integer": (
        """\
version: 1
policies:
  fast:
    deadline: 30
""",
        ['4:15: policies.fast.deadline: a duration needs a unit; did you mean "30s"?'],
    ),
    "duration_as_float": (
        """\
version: 1
policies:
  fast:
    deadline: 1.5
""",
        ['4:15: policies.fast.deadline: a duration needs a unit; did you mean "1.5s"?'],
    ),
    "duration_as_bare_text": (
        """\
version: 1
policies:
  fast:
    deadline: "30"
""",
        [
            (
                "4:15: policies.fast.deadline: '30' is no duration; expected a number with its unit, such as "
                '"500ms" or "1h30m"'
            )
        ],
    ),
    "duration_with_unknown_unit": (
        """\
version: 1
policies:
  fast:
    deadline: 30sec
""",
        [
            (
                "4:15: policies.fast.deadline: '30sec' is no duration; expected a number with its unit, such as "
                '"500ms" or "1h30m"'
            )
        ],
    ),
    "duration_with_space": (
        """\
version: 1
policies:
  fast:
    deadline: 30 s
""",
        [
            (
                "4:15: policies.fast.deadline: '30 s' is no duration; expected a number with its unit, such as "
                '"500ms" or "1h30m"'
            )
        ],
    ),
    "duration_negative": (
        """\
version: 1
policies:
  fast:
    deadline: -5s
""",
        [
            (
                "4:15: policies.fast.deadline: '-5s' is no duration; expected a number with its unit, such as "
                '"500ms" or "1h30m"'
            )
        ],
    ),
    "duration_zero": (
        """\
version: 1
policies:
  fast:
    deadline: 0s
""",
        ["4:15: policies.fast.deadline: expected more than 0"],
    ),
    "duration_zero_where_it_must_wait": (
        """\
version: 1
policies:
  fast:
    hedge: {after: 0s}
""",
        ["4:20: policies.fast.hedge.after: must be more than 0, and finite"],
    ),
    "duration_as_list": (
        """\
version: 1
policies:
  fast:
    deadline: [30s]
""",
        ['4:15: policies.fast.deadline: expected a duration such as "30s"'],
    ),
    "duration_as_truth": (
        """\
version: 1
policies:
  fast:
    deadline: true
""",
        ['4:15: policies.fast.deadline: expected a duration such as "30s"'],
    ),
    "sexagesimal": (
        """\
version: 1
policies:
  fast:
    deadline: 1:30
""",
        [
            (
                "4:15: policies.fast.deadline: 1:30 is the number 90 to readers of YAML 1.1 and text to those of"
                " 1.2; a duration has units, such as 1m30s"
            )
        ],
    ),
    "on_as_key": (
        """\
version: 1
fallbacks:
  - {from: a, to: [b], on: [timeout]}
""",
        [("3:24: fallbacks[0].on: on is a truth value to readers of YAML 1.1 and text to those of 1.2; quote it")],
    ),
    "yes": (
        """\
version: 1
cache: {sampled: yes}
""",
        [
            (
                "2:18: cache.sampled: yes is a truth value to readers of YAML 1.1 and text to those of 1.2; "
                "write true or false, or quote it"
            )
        ],
    ),
    "no_as_name": (
        """\
version: 1
policies:
  fast:
    breaker: no
""",
        [
            (
                "4:14: policies.fast.breaker: no is a truth value to readers of YAML 1.1 and text to those of "
                "1.2; write true or false, or quote it"
            )
        ],
    ),
    "octal": (
        """\
version: 1
policies:
  fast:
    retry: {max_attempts: 010}
""",
        [("4:27: policies.fast.retry.max_attempts: 010 is octal to readers of YAML 1.1; write it without the zero")],
    ),
    "hexadecimal": (
        """\
version: 1
policies:
  fast:
    retry: {max_attempts: 0x3}
""",
        [
            (
                "4:27: policies.fast.retry.max_attempts: 0x3 is a number to readers of YAML 1.1 and text to "
                "those of 1.2; quote it, or write it otherwise"
            )
        ],
    ),
    "underscored": (
        """\
version: 1
cache: {max_bytes: 64_000}
""",
        [
            (
                "2:20: cache.max_bytes: 64_000 is a number to readers of YAML 1.1 and text to those of 1.2; "
                "quote it, or write it otherwise"
            )
        ],
    ),
    "date": (
        """\
version: 1
policies:
  fast:
    deadline: 2024-01-01
""",
        [
            (
                "4:15: policies.fast.deadline: 2024-01-01 is a date to readers of YAML 1.1 and text to those of "
                "1.2; quote it, or write it otherwise"
            )
        ],
    ),
    "null": (
        """\
version: 1
policies:
  fast:
    deadline: null
""",
        ["4:15: policies.fast.deadline: nothing is given; leave the key out, or write none"],
    ),
    "nothing": (
        """\
version: 1
policies:
  fast:
    deadline:
""",
        ["4:14: policies.fast.deadline: nothing is given; leave the key out, or write none"],
    ),
    "nothing_as_section": (
        """\
version: 1
policies:
  fast:
    retry:
""",
        ["4:11: policies.fast.retry: nothing is given; leave the key out, or write none"],
    ),
    "infinite": (
        """\
version: 1
budgets: {a: {ratio: .inf}}
""",
        [
            (
                "2:22: budgets.a.ratio: .inf is a number to readers of YAML 1.1 and text to those of 1.2; quote "
                "it, or write it otherwise"
            )
        ],
    ),
    "duplicate_key": (
        """\
version: 1
policies:
  fast:
    deadline: 5s
    deadline: 6s
""",
        ["5:5: policies.fast.deadline: given twice, first on line 4"],
    ),
    "duplicate_section": (
        """\
version: 1
cache: {ttl: 1h}
cache: {ttl: 2h}
""",
        ["3:1: cache: given twice, first on line 2"],
    ),
    "tab_indent": (
        "version: 1\npolicies:\n\tfast: {}\n",
        ["3:1: while scanning for the next token, found character '\\t' that cannot start any token"],
    ),
    "unclosed_bracket": (
        """\
version: 1
policies: {fast: {deadline: 5s}
""",
        ["3:1: while parsing a flow mapping, expected ',' or '}', but got '<stream end>'"],
    ),
    "unclosed_quote": (
        """\
version: 1
policies: {fast: {deadline: "5s}}
""",
        ["3:1: while scanning a quoted scalar, found unexpected end of stream"],
    ),
    "wrong_indent": (
        """\
version: 1
policies:
  fast:
    deadline: 5s
   retry: {}
""",
        ["5:4: while parsing a block mapping, expected <block end>, but found '<block mapping start>'"],
    ),
    "two_documents": (
        """\
version: 1
---
version: 1
""",
        ["2:1: expected a single document in the stream, but found another document"],
    ),
    "python_object": (
        """\
version: 1
cache: !!python/object/apply:os.system ["true"]
""",
        ["2:8: the tag 'tag:yaml.org,2002:python/object/apply:os.system' has no meaning here"],
    ),
    "tag": (
        """\
version: 1
cache: !!map {}
""",
        ["2:8: the tag 'tag:yaml.org,2002:map' has no meaning here"],
    ),
    "merge_key": (
        """\
version: 1
policies:
  a: &a {deadline: 5s}
  b: {<<: *a}
""",
        ["4:7: policies.b: merge keys (<<) are gone from YAML 1.2; policies inherit by `extends`"],
    ),
    "undefined_alias": (
        """\
version: 1
policies: {a: *b}
""",
        ["2:15: found undefined alias 'b'"],
    ),
    "alias_of_itself": (
        """\
version: 1
policies: &p
  a: *p
""",
        ["2:11: policies.a: an alias that contains itself"],
    ),
    "deep_aliases": (
        """\
version: 1
a: &a [x,x,x,x,x,x,x,x,x,x]
b: &b [*a,*a,*a,*a,*a,*a,*a,*a,*a,*a]
c: &c [*b,*b,*b,*b,*b,*b,*b,*b,*b,*b]
d: &d [*c,*c,*c,*c,*c,*c,*c,*c,*c,*c]
e: [*d,*d,*d,*d,*d,*d,*d,*d,*d,*d]
""",
        ["2:22: more than 20000 values, counting each alias"],
    ),
    "deep_nesting": (
        "version: 1\ncache: " + "[" * 5000 + "]" * 5000,
        ["2:39: nested more than 32 levels deep"],
    ),
    "control_character": (
        "version: 1\ncache: {namespace: a\x07b}\n",
        ["2:21: the character #x0007 is not text"],
    ),
    "list_as_key": (
        """\
version: 1
policies: {[a, b]: {}}
""",
        ["2:12: policies: a key must be text"],
    ),
    "number_as_key": (
        """\
version: 1
policies: {1: {}}
""",
        ["2:12: policies: the key 1 is no text"],
    ),
    "policies_as_list": (
        """\
version: 1
policies: [a]
""",
        ["2:11: policies: expected a mapping of names, not a list"],
    ),
    "policy_as_text": (
        """\
version: 1
policies: {fast: quick}
""",
        ["2:18: policies.fast: expected a mapping, not 'quick'"],
    ),
    "name_with_capitals": (
        """\
version: 1
policies: {Fast: {}}
""",
        [("2:12: policies.Fast: no name; names begin with a letter, have a-z, 0-9 and _ only, and are not none")],
    ),
    "name_with_slash": (
        """\
version: 1
breakers: {openai/gpt-4o: {}}
""",
        [
            (
                "2:12: breakers.openai/gpt-4o: no name; names begin with a letter, have a-z, 0-9 and _ only, and"
                " are not none"
            )
        ],
    ),
    "name_none": (
        """\
version: 1
policies: {none: {}}
""",
        [("2:12: policies.none: no name; names begin with a letter, have a-z, 0-9 and _ only, and are not none")],
    ),
    "attempts_as_text": (
        """\
version: 1
policies:
  fast:
    retry: {max_attempts: three}
""",
        ["4:27: policies.fast.retry.max_attempts: expected a whole number, not 'three'"],
    ),
    "attempts_as_float": (
        """\
version: 1
policies:
  fast:
    retry: {max_attempts: 2.5}
""",
        ["4:27: policies.fast.retry.max_attempts: expected a whole number, not 2.5"],
    ),
    "attempts_as_truth": (
        """\
version: 1
policies:
  fast:
    retry: {max_attempts: true}
""",
        ["4:27: policies.fast.retry.max_attempts: expected a whole number, not true"],
    ),
    "no_attempts": (
        """\
version: 1
policies:
  fast:
    retry: {max_attempts: 0}
""",
        [("4:27: policies.fast.retry.max_attempts: expected a whole number of at least 1; the first attempt counts")],
    ),
    "too_many_attempts": (
        """\
version: 1
policies:
  fast:
    retry: {max_attempts: 11}
""",
        ["4:27: policies.fast.retry.max_attempts: 11 attempts are more than 10, which help nobody"],
    ),
    "too_many_attempts_for_a_class": (
        """\
version: 1
policies:
  fast:
    retry: {errors: {timeout: {max_attempts: 50}}}
""",
        [("4:46: policies.fast.retry.errors.timeout.max_attempts: 50 attempts are more than 10, which help nobody")],
    ),
    "unknown_class": (
        """\
version: 1
policies:
  fast:
    retry: {errors: {ratelimited: {max_attempts: 2}}}
""",
        ["4:22: policies.fast.retry.errors.ratelimited: unknown key, did you mean 'rate_limited'?"],
    ),
    "class_that_is_never_retried": (
        """\
version: 1
policies:
  fast:
    retry: {errors: {quota_exhausted: {max_attempts: 2}}}
""",
        [
            (
                "4:22: policies.fast.retry.errors.quota_exhausted: unknown key; expected one of bad_output, "
                "connection, overloaded, rate_limited, server_error, timeout"
            )
        ],
    ),
    "unknown_backoff": (
        """\
version: 1
policies:
  fast:
    retry: {backoff: {kind: exponential}}
""",
        ["4:29: policies.fast.retry.backoff.kind: expected 'full_jitter', not 'exponential'"],
    ),
    "base_above_cap": (
        """\
version: 1
policies:
  fast:
    retry: {backoff: {base: 30s, cap: 20s}}
""",
        [
            (
                "4:29: policies.fast.retry.backoff.base: 30s is more than the cap of 20s (FILE:4:39); every wait"
                " would be drawn from the cap alone"
            )
        ],
    ),
    "ratio_above_1": (
        """\
version: 1
breakers: {a: {failure_ratio: 1.5}}
""",
        ["2:31: breakers.a.failure_ratio: expected a number above 0, and at most 1"],
    ),
    "limit_of_nothing": (
        """\
version: 1
limits: {a: {max_wait: 5s}}
""",
        ["2:13: limits.a: expected at least one of requests, tokens and concurrency"],
    ),
    "per_what": (
        """\
version: 1
limits: {a: {requests: 5, per: tenant}}
""",
        ["2:32: limits.a.per: there is no 'tenant'; expected one of model, provider"],
    ),
    "hedge_without_after": (
        """\
version: 1
policies:
  fast:
    hedge: {max_extra: 1}
""",
        ["4:5: policies.fast.hedge: 'after' is missing"],
    ),
    "hedge_after_the_deadline": (
        """\
version: 1
policies:
  fast:
    deadline: 5s
    hedge: {after: 6s}
""",
        [
            (
                "5:20: policies.fast.hedge.after: 6s is more than the deadline of 5s (FILE:4:15); there would "
                "never be a hedge"
            )
        ],
    ),
    "attempt_beyond_the_deadline": (
        """\
version: 1
policies:
  fast:
    deadline: 10s
    attempt_timeout: 20s
""",
        [
            (
                "5:22: policies.fast.attempt_timeout: 20s is more than the deadline of 10s (FILE:4:15); the "
                "attempt would never be timed"
            )
        ],
    ),
    "attempt_beyond_an_inherited_deadline": (
        """\
version: 1
policies:
  default: {deadline: 10s}
  slow: {extends: default, attempt_timeout: 20s}
""",
        [
            (
                "4:45: policies.slow.attempt_timeout: 20s is more than the deadline of 10s (FILE:3:23); the "
                "attempt would never be timed"
            )
        ],
    ),
    "window_shorter_than_two_attempts": (
        """\
version: 1
policies:
  fast: {attempt_timeout: 20s, breaker: b}
breakers:
  b: {window: 30s}
""",
        [
            (
                "5:15: breakers.b.window: a window of 30s is shorter than two attempts of 20s (FILE:3:27), and "
                "would forget failures before the breaker has seen enough of them"
            )
        ],
    ),
    "default_window_shorter_than_two_attempts": (
        """\
version: 1
policies:
  fast: {attempt_timeout: 40s, breaker: b}
breakers:
  b: {}
""",
        [
            (
                "5:6: breakers.b: a window of 1m is shorter than two attempts of 40s (FILE:3:27), and would "
                "forget failures before the breaker has seen enough of them"
            )
        ],
    ),
    "dangling_extends": (
        """\
version: 1
policies:
  fast:
    extends: defualt
  default: {}
""",
        ["4:14: policies.fast.extends: there is no policy 'defualt', did you mean 'default'?"],
    ),
    "dangling_breaker": (
        """\
version: 1
policies:
  fast:
    breaker: standart
breakers: {standard: {}}
""",
        ["4:14: policies.fast.breaker: there is no 'standart' in breakers, did you mean 'standard'?"],
    ),
    "dangling_budget": (
        """\
version: 1
policies:
  fast:
    budget: shared
""",
        ["4:13: policies.fast.budget: there is no 'shared' in budgets"],
    ),
    "dangling_limit_of_a_rule": (
        """\
version: 1
models: [{match: "*", limit: none_such}]
policies: {default: {}}
""",
        ["2:30: models[0].limit: there is no 'none_such' in limits"],
    ),
    "dangling_policy_of_a_rule": (
        """\
version: 1
models: [{match: "*", policy: fats}]
policies: {fast: {}}
""",
        ["2:31: models[0].policy: there is no 'fats' in policies, did you mean 'fast'?"],
    ),
    "extends_itself": (
        """\
version: 1
policies:
  fast:
    extends: fast
""",
        ["4:14: policies.fast.extends: a cycle: fast extends fast"],
    ),
    "extends_in_a_circle": (
        """\
version: 1
policies:
  a: {extends: b}
  b: {extends: c}
  c: {extends: a}
""",
        ["3:16: policies.a.extends: a cycle: a extends b extends c extends a"],
    ),
    "rule_without_match": (
        """\
version: 1
models: [{policy: default}]
policies: {default: {}}
""",
        ["2:10: models[0]: 'match' is missing"],
    ),
    "empty_match": (
        """\
version: 1
models: [{match: ""}]
policies: {default: {}}
""",
        ["2:18: models[0].match: expected text, not ''"],
    ),
    "star_unquoted": (
        """\
version: 1
models:
  - match: *
""",
        ["3:13: while scanning an alias, expected alphabetic or numeric character, but found '\\n'"],
    ),
    "unreachable_rule": (
        """\
version: 1
policies: {default: {}}
models:
  - match: "openai/*"
  - match: "openai/gpt-4o*"
  - match: "*"
  - match: "mistral/*"
""",
        [
            (
                "5:12: models[1].match: never reached: 'openai/*' (FILE:4:12) comes first and matches all that "
                "'openai/gpt-4o*' does"
            ),
            ("7:12: models[3].match: never reached: '*' (FILE:6:12) comes first and matches all that 'mistral/*' does"),
        ],
    ),
    "models_as_mapping": (
        """\
version: 1
models: {"*": default}
""",
        ["2:9: models: expected a list, not a mapping"],
    ),
    "fallback_without_to": (
        """\
version: 1
fallbacks: [{from: a}]
""",
        ["2:13: fallbacks[0]: 'to' is missing"],
    ),
    "fallback_to_a_text": (
        """\
version: 1
fallbacks: [{from: a, to: b}]
""",
        ["2:27: fallbacks[0].to: expected a list, not 'b'"],
    ),
    "fallback_to_nobody": (
        """\
version: 1
fallbacks: [{from: a, to: []}]
""",
        ["2:27: fallbacks[0].to: expected at least one, not an empty list"],
    ),
    "fallback_for_no_cause": (
        """\
version: 1
fallbacks: [{from: a, to: [b], when: [time_out]}]
""",
        ["2:39: fallbacks[0].when[0]: there is no 'time_out', did you mean 'timeout'?"],
    ),
    "fallback_to_itself": (
        """\
version: 1
fallbacks: [{from: a, to: [a]}]
""",
        ["2:28: fallbacks[0].to[0]: 'a' would be asked in place of itself"],
    ),
    "fallback_cycle": (
        """\
version: 1
fallbacks:
  - {from: "openai/*", to: [anthropic/claude], when: [overloaded]}
  - {from: "anthropic/*", to: [openai/gpt-4o], when: [overloaded, auth]}
""",
        [
            (
                "3:29: fallbacks[0].to[0]: a cycle for overloaded: anthropic/claude falls back to openai/gpt-4o "
                "falls back to anthropic/claude"
            )
        ],
    ),
    "negative_ttl": (
        """\
version: 1
cache: {ttl: 0s}
""",
        ["2:14: cache.ttl: must be more than 0, and finite"],
    ),
    "tiers_reversed": (
        """\
version: 1
trace: {cost_tiers: [0.1, 0.01]}
""",
        ["2:21: trace.cost_tiers: expected 0 <= medium <= high, in dollars"],
    ),
    "tiers_of_three": (
        """\
version: 1
trace: {cost_tiers: [0.1, 0.2, 0.3]}
""",
        ["2:21: trace.cost_tiers: expected at most 2 values"],
    ),
    "code_only": (
        """\
version: 1
cache: {accept: len}
breakers: {b: {name: mine}}
""",
        ["2:9: cache.accept: only code can give it", "3:16: breakers.b.name: only code can give it"],
    ),
    "store_without_a_port": (
        """\
version: 1
cache: {store: "redis://user:secret@host:port/0"}
limits: {l: {requests: 1, store: "redis://user:secret@[::1"}}
""",
        [
            "2:16: cache.store: the host or the port of the URL cannot be read",
            '3:34: limits.l.store: expected the URL of a Redis server, such as "redis://host:6379/0"',
        ],
    ),
    "store_without_scheme": (
        """\
version: 1
cache: {store: redis}
limits: {l: {requests: 1, store: "localhost:6379"}}
""",
        [
            "2:16: cache.store: expected a URL that begins with memory://, sqlite:///, redis://, rediss://, unix://",
            '3:34: limits.l.store: expected the URL of a Redis server, such as "redis://host:6379/0"',
        ],
    ),
    "spending_in_nothing": (
        """\
version: 1
spending: {daily: {usd: -1}, weekly: {usd: ten}, monthly: {usd: 5, scope: tenant}, ever: {usd: 1, zone: UTC}}
""",
        [
            "2:25: spending.daily.usd: expected a finite number of dollars, 0 or more",
            "2:44: spending.weekly.usd: expected a number, not 'ten'",
            '2:75: spending.monthly.scope: expected "global", "model", or a tag as in "tag:tenant"',
        ],
    ),
    "spending_of_nobody": (
        """\
version: 1
policies: {default: {spending: daily}, other: {spending: [daily]}}
""",
        [
            "2:32: policies.default.spending: expected a list, not 'daily'",
            "2:59: policies.other.spending[0]: there is no 'daily' in spending",
        ],
    ),
    "meter_of_what": (
        """\
version: 1
meter: {on_unknown_price: warm, leger: x}
""",
        [
            "2:27: meter.on_unknown_price: there is no 'warm', did you mean 'warn'?",
            "2:33: meter.leger: unknown key, did you mean 'ledger'?",
        ],
    ),
    "enforce_unknown_path": (
        """\
version: 1
enforce: {require: [braker]}
""",
        ["2:21: enforce.require[0]: there is no 'braker', did you mean 'breaker'?"],
    ),
    "enforce_text_as_ceiling": (
        """\
version: 1
enforce: {max: {retry: {backoff: {kind: full_jitter}}}}
""",
        ["2:35: enforce.max.retry.backoff.kind: unknown key; expected one of base, cap"],
    ),
    "enforce_unitless": (
        """\
version: 1
enforce: {max: {deadline: 60}}
""",
        ['2:27: enforce.max.deadline: a duration needs a unit; did you mean "60s"?'],
    ),
    "beyond_a_ceiling": (
        """\
version: 1
policies:
  default: {deadline: 90s}
enforce:
  max: {deadline: 60s}
""",
        ["3:23: policies.default.deadline: 1m30s is more than the 1m of enforce.max (FILE:5:19)"],
    ),
    "no_deadline_below_a_ceiling": (
        """\
version: 1
policies:
  default: {}
enforce:
  max: {deadline: 60s}
""",
        ["3:12: policies.default.deadline: there is none, and enforce.max (FILE:5:19) asks for at most 1m"],
    ),
    "beyond_a_ceiling_for_a_class": (
        """\
version: 1
policies:
  default: {retry: {errors: {rate_limited: {max_attempts: 6}}}}
enforce:
  max: {retry: {max_attempts: 5}}
""",
        [
            (
                "3:59: policies.default.retry.errors.rate_limited.max_attempts: 6 is more than the 5 of "
                "enforce.max (FILE:5:31)"
            )
        ],
    ),
    "default_backoff_beyond_a_ceiling": (
        """\
version: 1
policies:
  default: {retry: {}}
enforce:
  max: {retry: {backoff: {cap: 30s}}}
""",
        [
            (
                "3:20: policies.default.retry.errors.overloaded.backoff.cap: 1m, the default, is more "
                "than the 30s of enforce.max (FILE:5:32)"
            )
        ],
    ),
    "below_a_floor": (
        """\
version: 1
policies:
  default: {retry: {max_attempts: 1}}
enforce: {min: {retry: {max_attempts: 2}}}
""",
        ["3:35: policies.default.retry.max_attempts: 1 is less than the 2 of enforce.min (FILE:4:39)"],
    ),
    "what_is_required": (
        """\
version: 1
policies: {default: {}}
enforce: {require: [breaker]}
""",
        ["2:21: policies.default.breaker: required by enforce.require (FILE:3:21), and not there"],
    ),
    "what_is_forbidden": (
        """\
version: 1
cache: {sampled: true}
enforce: {forbid: [cache.sampled]}
""",
        ["2:18: cache.sampled: true is forbidden by enforce.forbid (FILE:3:20)"],
    ),
    "rule_without_policy_and_no_default": (
        """\
version: 1
policies: {fast: {}}
models: [{match: "*"}]
""",
        ["3:10: models[0]: it names no policy, and there is no 'default'; expected one of fast"],
    ),
    "fallback_without_a_rule": (
        """\
version: 1
policies: {fast: {}}
models: [{match: "openai/*", policy: fast}]
fallbacks: [{from: "openai/*", to: [anthropic/claude]}]
""",
        ["4:37: fallbacks[0].to[0]: no rule of models matches it, and there is no policy 'default'"],
    ),
    "number_of_5000_digits": (
        "version: 1\ncache: {max_bytes: " + "1" * 5000 + "}\n",
        ["2:20: cache.max_bytes: too long for a number"],
    ),
    "reference_with_capitals": (
        """\
version: 1
policies:
  fast:
    breaker: Standard
breakers: {standard: {}}
""",
        [
            (
                "4:14: policies.fast.breaker: no name; names begin with a letter, have a-z, 0-9 and _ only, and "
                "are not none"
            ),
            "4:14: policies.fast.breaker: there is no 'Standard' in breakers, did you mean 'standard'?",
        ],
    ),
    "rules_with_classes": (
        """\
version: 1
models: [{match: "[a-c]*"}, {match: "[a-c]*"}, {match: "[ab]*"}]
""",
        [("2:37: models[1].match: never reached: '[a-c]*' (FILE:2:18) comes first and matches all that '[a-c]*' does")],
    ),
    "fallback_cycle_for_many_causes": (
        """\
version: 1
fallbacks:
  - {from: a, to: [b]}
  - {from: b, to: [c]}
  - {from: c, to: [a]}
""",
        [("3:20: fallbacks[0].to[0]: a cycle for overloaded: b falls back to c falls back to a falls back to b")],
    ),
    "fallback_with_a_rule": (
        """\
version: 1
policies: {fast: {}}
models: [{match: "a*", policy: fast}]
fallbacks: [{from: a1, to: [a2, b]}]
""",
        ["4:33: fallbacks[0].to[1]: no rule of models matches it, and there is no policy 'default'"],
    ),
}

TOML: dict[str, tuple[str, list[str]]] = {
    "empty": (
        "",
        ["1:1: it is empty; a policy begins with `version = 1`"],
    ),
    "syntax": (
        "version = \n",
        ["1:11: Invalid value"],
    ),
    "unknown_key": (
        """\
version = 1
[policies.fast.retry]
atempts = 3
""",
        ["3:1: policies.fast.retry.atempts: unknown key, did you mean 'max_attempts'?"],
    ),
    "unknown_inline_key": (
        """\
version = 1
[policies.fast]
retry = {backoff = {bsae = "1s"}}
""",
        ["3:21: policies.fast.retry.backoff.bsae: unknown key, did you mean 'base'?"],
    ),
    "unitless": (
        """\
version = 1
[policies.fast]
deadline = 30
""",
        ['3:12: policies.fast.deadline: a duration needs a unit; did you mean "30s"?'],
    ),
    "duplicate_key": (
        """\
version = 1
version = 1
""",
        ["2:12: a key is given twice"],
    ),
    "duplicate_table": (
        """\
version = 1
[cache]
[cache]
""",
        ["3:7: Cannot declare ('cache',) twice"],
    ),
    "date": (
        """\
version = 1
[policies.fast]
deadline = 07:32:00
""",
        ["3:12: policies.fast.deadline: a date or a time of day has no meaning here; write it in quotes"],
    ),
    "infinite": (
        """\
version = 1
[budgets.a]
ratio = inf
""",
        ["3:9: budgets.a.ratio: expected a finite number, not inf"],
    ),
    "deep_nesting": (
        "version = 1\ncache = " + "[" * 5000 + "]" * 5000,
        ["1:1: nested too deeply"],
    ),
    "deep_keys": (
        "version = 1\n" + ".".join("a" * 3000) + " = 1",
        ["2:1: nested more than 32 levels deep"],
    ),
    "rule": (
        """\
version = 1
[[models]]
match = "*"
policy = "fats"
[[models]]
match = "a"
[policies.fast]
""",
        [
            "4:10: models[0].policy: there is no 'fats' in policies, did you mean 'fast'?",
            "5:3: models[1]: it names no policy, and there is no 'default'; expected one of fast",
            "6:9: models[1].match: never reached: '*' (FILE:3:9) comes first and matches all that 'a' does",
        ],
    ),
    "yaml_text": (
        "version: 1\n",
        ["1:8: Expected '=' after a key in a key/value pair"],
    ),
    "number_of_5000_digits": (
        "version = 1\ncache.max_bytes = " + "1" * 5000 + "\n",
        ["2:19: too long for a number"],
    ),
    "table_in_a_list": (
        """\
version = 1
[[models]]
match = "*"
[models.sub]
key = 1
""",
        ["4:2: models[0].sub: unknown key; expected one of limit, match, policy"],
    ),
    "hexadecimal_number_of_5000_digits": (
        "version = 1\ncache.max_bytes = 0x" + "1" * 5000 + "\n",
        ["2:19: cache.max_bytes: too long for a number"],
    ),
}
