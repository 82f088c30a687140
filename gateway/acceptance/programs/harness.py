"""What the Python programs of this folder share.

They print one line of JSON per operation, as those in JavaScript do: {method,
result, ms, error}. harness.cjs says what the results mean.
"""

import json
import time
import traceback

from daytona.common.errors import DaytonaError


def missing(e):
    return getattr(e, "status_code", None) == 501 or "is not built" in str(e) or "HTTP 501" in str(e)


def step(method, work):
    """Runs one operation and returns its value, or None when it failed."""
    began = time.monotonic()
    line = {"method": method, "result": "ok"}
    value = None
    try:
        value = work()
    except Exception as e:
        line["result"] = "missing" if missing(e) else "failed"
        line["error"] = f"{type(e).__name__}: {e}" if isinstance(e, DaytonaError) else traceback.format_exc()
    line["ms"] = round((time.monotonic() - began) * 1000, 1)
    print(json.dumps(line), flush=True)
    return value


def same(got, want):
    assert got == want, f"got {got!r}, want {want!r}"


def has(text, part):
    assert part in str(text), f"{text!r} lacks {part!r}"


def raises(kind, work):
    try:
        work()
    except kind:
        return
    raise AssertionError(f"want {kind.__name__}")
