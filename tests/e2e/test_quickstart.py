"""The quick start itself, twice, and gone again; in a state directory of its own."""
import os
import subprocess
import tempfile
import time
import urllib.error
import urllib.request

from cluster import ROOT
from scenario import Skip, equal, main, scenario

directory = None


def up():
    global directory
    if os.geteuid() != 0:
        raise Skip("needs root for an engine and its packages")
    if os.path.exists("/var/lib/davit/orchestrator.pid"):
        raise Skip("a cluster of this machine's own runs; the quick start would share its ports")
    directory = tempfile.mkdtemp(prefix="davit-quickstart-", dir="/var/tmp")


def quickstart(*words, seconds=300):
    env = {**os.environ, "DAVIT_HOME": directory}
    for name in ("DAVIT_URL", "OPENFAAS_URL", "DAVIT_PASSWORD"):
        env.pop(name, None)
    begin = time.monotonic()
    r = subprocess.run([f"{ROOT}/deploy/quickstart.sh", *words], env=env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                       stderr=subprocess.STDOUT, text=True, timeout=seconds)
    if r.returncode:
        raise AssertionError(f"quickstart {' '.join(words)}: exit {r.returncode}: {r.stdout[-1500:]}")
    return r.stdout, time.monotonic() - begin


def shows_the_story(text):
    for words in ("Hello, World!", "erver-", "asleep", "It works."):
        assert words in text, f"{words!r} not in {text}"
    part = int(text.split("Our part took ")[1].split(" ms")[0])
    assert part < 10000, f"our part took {part} ms"


@scenario
def it_ends_with_the_functions_answer_and_back_at_zero():
    shows_the_story(quickstart()[0])


@scenario
def a_second_run_does_no_harm_and_is_quick():
    text, took = quickstart()
    shows_the_story(text)
    assert took < 60, f"took {took:.0f} s"


@scenario
def a_second_node_may_be_asked_for_while_it_runs():
    shows_the_story(quickstart("--nodes", "2")[0])
    shows_the_story(quickstart("--nodes", "2")[0])


@scenario
def stop_ends_all_of_it_and_purge_removes_its_state():
    quickstart("--stop")
    try:
        urllib.request.urlopen("http://127.0.0.1:8080/healthz", timeout=2)
        raise AssertionError("something still answers")
    except urllib.error.URLError:
        pass
    assert not os.path.exists("/run/netns/davit-node2")
    quickstart("--purge")
    equal(os.path.exists(directory), False, "state directory")


def down():
    if directory and os.path.exists(directory):
        quickstart("--purge")


main(up, down)
