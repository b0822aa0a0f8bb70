"""What goes wrong with functions, engines and people is said, at once and in the right words."""
import json
import os
import sqlite3
import subprocess
import time

from cluster import BIN, TOOLS, Cluster, Process
from scenario import equal, main, scenario, wait_until

cluster = None


def up():
    global cluster
    cluster = Cluster(nodes=1)
    cluster.up()


def problem(answer, status, words, field=None):
    equal(answer.status, status, f"status of {answer}")
    assert answer.headers["content-type"].startswith("application/problem+json"), answer.headers
    for word in [words] if isinstance(words, str) else words:
        assert word in answer.json["detail"], f"{answer.json['detail']!r} does not say {word!r}"
    if field:
        equal(answer.json["field"], field)


def failed_with(name, reason, within=20):
    def look():
        d = cluster.describe(name)
        return d if d["status"]["phase"] == "failed" else None

    d = wait_until(f"{name} is failed", look, within)
    reasons = {r.get("reason") for r in d["replicas"]}
    assert reason in reasons or reason in json.dumps(d), f"{reason} not in {d['status']} {reasons}"
    return d


def answered_503(name, words, within):
    begin = time.monotonic()
    answer = cluster.invoke(name)
    took = time.monotonic() - begin
    equal(answer.status, 503, f"status of {answer}")
    for word in words:
        assert word in answer.text, f"{answer.text!r} does not say {word!r}"
    assert took < within, f"the caller waited {took:.1f} s to hear it"
    return answer


@scenario
def a_missing_image_fails_with_the_engines_words():
    cluster.deploy("noimage", image="registry.invalid/no/such:image")
    answered_503("noimage", ["registry.invalid"], 15)
    failed_with("noimage", "image_missing")
    cluster.remove("noimage")


@scenario
def a_function_that_exits_at_once_shows_its_exit_code_and_last_words():
    cluster.deploy("exits", image=TOOLS, entrypoint=["/bin/sh", "-c", "echo cannot find my configuration; exit 7"])
    answered_503("exits", ["7"], 15)
    d = failed_with("exits", "exited")
    assert "cannot find my configuration" in json.dumps(d), "its last words are not shown"
    cluster.remove("exits")


@scenario
def a_function_that_never_listens_is_given_up_after_its_start_timeout():
    cluster.deploy("silent", image=TOOLS, entrypoint=["/bin/sleep", "600"], health={"start_timeout": "1s"})
    answered_503("silent", [], 20)
    failed_with("silent", "not_ready")
    cluster.remove("silent")


@scenario
def a_function_that_listens_late_is_waited_for():
    cluster.deploy("late", image=TOOLS, entrypoint=["/bin/sh", "-c", "/bin/sleep 1.5; exec /hello"])
    begin = time.monotonic()
    equal(cluster.invoke("late", body=b"late").text, "Hello, late!\n")
    assert time.monotonic() - begin > 1.4, "answered before it listened"
    cluster.remove("late")


@scenario
def a_function_killed_for_its_memory_says_so():
    cluster.deploy("greedy", image=TOOLS, limits={"memory": "16Mi"},
                   entrypoint=["/bin/sh", "-c", "exec /bin/dd if=/dev/zero of=/dev/null bs=256M count=1"])
    answered_503("greedy", [], 15)
    failed_with("greedy", "oom")
    cluster.remove("greedy")


@scenario
def a_function_that_recovers_is_served_again():
    cluster.deploy("mended", image=TOOLS, entrypoint=["/bin/sh", "-c", "exit 1"])
    answered_503("mended", [], 15)
    a = cluster.api("PUT", "/v1/functions/mended", {"name": "mended", "image": TOOLS, "entrypoint": ["/hello"]})
    equal(a.status, 200)
    wait_until("the new version answers", lambda: cluster.invoke("mended").status == 200, 10)
    cluster.remove("mended")


@scenario
def a_function_that_does_not_fit_on_any_node_says_what_is_missing():
    cluster.deploy("huge", requests={"memory": "64Ti"})
    answered_503("huge", ["memory"], 10)
    cluster.remove("huge")


@scenario
def an_engine_that_is_down_is_reported_and_recovers_by_itself():
    node = cluster.nodes[0]
    cluster.deploy("early")
    node.engine.process.stop()
    wait_until("the node is not ready", lambda: cluster.ready_nodes() == 0, 15)
    equal(cluster.api("GET", "/readyz").status, 503)
    node.engine.start()
    node.engine.wait()
    wait_until("the node is ready by itself", lambda: cluster.ready_nodes() == 1, 20)
    equal(cluster.invoke("early").status, 200)
    cluster.remove("early")


@scenario
def an_unknown_function_is_404_at_once():
    begin = time.monotonic()
    equal(cluster.invoke("nobody").status, 404)
    assert time.monotonic() - begin < 1
    problem(cluster.api("GET", "/v1/functions/nobody"), 404, "nobody")


@scenario
def a_wrong_spec_is_refused_with_the_field():
    for spec, field in (({"name": "x", "image": "i", "colour": "red"}, "colour"),
                        ({"name": "Upper", "image": "i"}, "name"),
                        ({"name": "x", "image": "i", "scale": {"min": 3, "max": 2}}, "scale.min"),
                        ({"name": "x", "image": "i", "scale": {"max": "many"}}, "scale.max"),
                        ({"name": "x", "image": "i", "limits": {"memory": "12 parsecs"}}, "limits.memory"),
                        ({"name": "x"}, "image")):
        a = cluster.api("POST", "/v1/functions", spec)
        equal(a.status, 400, f"status for {spec}: {a}")
        equal(a.json.get("field"), field)
    problem(cluster.api("POST", "/v1/functions", '{"name":"x","name":"y","image":"i"}'), 400, "name")
    problem(cluster.api("POST", "/v1/functions", "no json"), 400, "")
    problem(cluster.api("POST", "/v1/functions", {"name": "x", "image": "i", "secrets": ["absent"]}), 400, "absent")


@scenario
def a_wrong_method_is_405_with_what_is_allowed():
    a = cluster.api("PATCH", "/v1/nodes")
    equal(a.status, 405)
    assert "GET" in a.headers["allow"]


@scenario
def wrong_credentials_are_refused_and_functions_stay_open():
    equal(cluster.call("GET", "/v1/functions").status, 401)
    equal(cluster.call("GET", "/v1/functions", headers={"Authorization": "Basic YWRtaW46d3Jvbmc="}).status, 401)
    equal(cluster.call("GET", "/v1/functions", headers={"Authorization": "Bearer " + cluster.secret("admin-password")}).status, 200)
    equal(cluster.call("POST", "/v1/nodes/join", "{}", {"Authorization": "Bearer wrong"}).status, 401)
    cluster.deploy("closed", auth="required")
    equal(cluster.invoke("closed").status, 401)
    equal(cluster.api("POST", "/v1/functions/closed/invoke").status, 200)
    cluster.remove("closed")


@scenario
def a_body_that_is_too_large_is_413():
    a = cluster.api("POST", "/v1/functions", json.dumps({"name": "x", "image": "i", "env": {"A": "b" * (9 << 20)}}))
    equal(a.status, 413)


def refused_start(*command):
    r = subprocess.run(command, capture_output=True, text=True, timeout=20, stdin=subprocess.DEVNULL)
    assert r.returncode not in (0, -11, -6), f"exit {r.returncode}: {r.stderr}"
    return r.stdout + r.stderr


@scenario
def a_port_in_use_is_named():
    words = refused_start(f"{BIN}/davit-orchestrator", "--listen", f"{cluster.address}:8080", "--metrics-listen",
                          f"{cluster.address}:0", "--state-dir", f"{cluster.directory}/second")
    assert f"{cluster.address}:8080" in words and "in use" in words, words


@scenario
def a_state_directory_that_cannot_be_used_is_named():
    words = refused_start(f"{BIN}/davit-orchestrator", "--listen", "127.0.0.1:0", "--metrics-listen", "127.0.0.1:0",
                          "--state-dir", "/proc/nowhere")
    assert "/proc/nowhere" in words, words


@scenario
def a_database_of_a_newer_version_is_refused_untouched():
    directory = f"{cluster.directory}/newer"
    path = f"{directory}/store.db"
    command = [f"{BIN}/davit-orchestrator", "--listen", "127.0.0.1:0", "--metrics-listen", "127.0.0.1:0", "--state-dir", directory]
    first = Process("orchestrator", command, f"{cluster.directory}/newer.log").start()
    wait_until("it made its database", lambda: "serving" in first.tail(), 10)
    first.stop()
    with sqlite3.connect(path) as db:
        db.execute("PRAGMA user_version = 999")
    db.close()
    with open(path, "rb") as f:
        before = f.read()
    words = refused_start(*command)
    assert "999" in words, words
    with open(path, "rb") as f:
        equal(f.read(), before, "the database")


main(up, lambda: cluster and cluster.down(), lambda: cluster and cluster.show_logs())
