"""Scripted tests that report like cmocka programs, so that one reader counts both (tally.py).

    @scenario
    def a_request_meets_no_replica_and_is_answered(): ...
    main()

A scenario fails by raising, and is skipped by raising Skip("why").  `main` runs them in the order they stand, or
those named on the command line."""
import sys
import time
import traceback

_scenarios = []


class Skip(Exception):
    pass


def scenario(function):
    _scenarios.append(function)
    return function


def wait_until(what, condition, seconds, every=0.05):
    """The first true value of condition(); AssertionError when the time is up.  An exception of the condition's own is
    no answer yet."""
    deadline = time.monotonic() + seconds
    last = None
    while True:
        try:
            value = condition()
            if value:
                return value
            last = None
        except (OSError, AssertionError, KeyError, ValueError) as e:
            last = e
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {seconds} s: {what}" + (f" ({last})" if last else ""))
        time.sleep(every)


def equal(got, wanted, what=""):
    if got != wanted:
        raise AssertionError(f"{what or 'value'}: got {got!r}, wanted {wanted!r}")


def main(setup=None, teardown=None, on_failure=None):
    chosen = [f for f in _scenarios if not sys.argv[1:] or f.__name__ in sys.argv[1:]]
    results = {"OK": 0, "FAILED": 0, "SKIPPED": 0}
    print(f"[==========] Running {len(chosen)} test(s).", flush=True)
    try:
        broken = None
        try:
            if setup:
                setup()
        except Skip as e:
            broken = e
        except Exception as e:  # every scenario says so, none is lost
            traceback.print_exc(file=sys.stdout)
            broken = AssertionError(f"setup: {e}")
        for function in chosen:
            results[_run(function, broken, on_failure)] += 1
    finally:
        if teardown:
            teardown()
    print(f"[==========] {len(chosen)} test(s) run: {results}", flush=True)
    sys.exit(1 if results["FAILED"] else 0)


def _run(function, broken, on_failure):
    name = function.__name__
    print(f"[ RUN      ] {name}", flush=True)
    begin = time.monotonic()
    try:
        if broken:
            raise broken
        function()
        result = "OK"
    except Skip as e:
        print(e)
        result = "SKIPPED"
    except Exception as e:
        if not broken:
            for line in traceback.format_exc().splitlines()[-12:-1]:
                print("| " + line)
            if on_failure:
                on_failure()
        print(f"[  ERROR   ] --- {type(e).__name__}: {e}".replace("\n", " "))
        result = "FAILED"
    print(f"took {time.monotonic() - begin:.1f} s")
    print({"OK": "[       OK ] ", "FAILED": "[  FAILED  ] ", "SKIPPED": "[  SKIPPED ] "}[result] + name, flush=True)
    return result
