"""What faas-cli and the OpenFaaS SDKs send, request by request, and what they need to see in the answers."""
import base64
import http.server
import json
import threading
import time

from cluster import HELLO, TOOLS, Cluster
from scenario import equal, main, scenario, wait_until

cluster = None


def up():
    global cluster
    cluster = Cluster(nodes=1)
    cluster.up()


def system(method, path, body=None):
    return cluster.api(method, "/system" + path, body, {"User-Agent": "faas-cli/0.18.12", "Accept-Encoding": "gzip"})


def status_of(name, query=""):
    return system("GET", f"/function/{name}{query}").json


@scenario
def login_lists_the_functions_with_the_password_and_is_refused_without():
    a = system("GET", "/functions")
    equal((a.status, a.json), (200, []))
    a = cluster.call("GET", "/system/functions")
    equal(a.status, 401)
    assert a.headers["www-authenticate"].startswith("Basic realm="), a.headers


@scenario
def version_finds_both_version_objects():
    info = system("GET", "/info").json
    for part in (info["provider"], info):
        assert part["version"]["release"] and part["version"]["sha"], info
    assert info["provider"]["provider"] and info["provider"]["orchestration"], info


DEPLOYMENT = {"service": "env", "image": TOOLS, "namespace": "", "envProcess": "/bin/env", "envVars": {"COLOR": "blue"},
              "constraints": None, "secrets": [], "labels": {"com.openfaas.scale.max": "3", "team": "a"},
              "annotations": None, "limits": None, "requests": None, "readOnlyRootFilesystem": False}


@scenario
def deploy_is_put_then_post_and_a_replica_is_there():
    equal(system("PUT", "/functions", DEPLOYMENT).status, 404)
    hello = {**DEPLOYMENT, "service": "hello", "image": HELLO, "envProcess": ""}
    equal(system("POST", "/functions", hello).status, 202)
    equal(system("PUT", "/functions", hello).status, 202)
    # ready: faas-cli asks until availableReplicas is there; the OpenFaaS default is one replica at least
    wait_until("a replica is available", lambda: status_of("hello").get("availableReplicas", 0) == 1, 20)
    s = status_of("hello", "?usage=1")
    equal((s["name"], s["image"], s["namespace"]), ("hello", HELLO, "openfaas-fn"))
    equal(s["labels"]["team"], "a")
    equal(s["annotations"], {})
    assert "usage" in s, s
    assert "secrets" not in s and "limits" not in s, f"fields nobody sent: {s}"


@scenario
def invoke_goes_to_the_name_with_the_openfaas_namespace():
    for path in ("hello", "hello.openfaas-fn", "hello.openfaas-fn/"):
        a = cluster.call("POST", f"/function/{path}", b"you", {"Content-Type": "text/plain"})
        equal((a.status, a.text), (200, "Hello, you!\n"), path)
    assert a.headers["x-call-id"] and int(a.headers["x-start-time"]) > 10**18, a.headers
    a = cluster.call("POST", "/function/hello", b"", {"X-Call-Id": "my-own"})
    equal(a.headers["x-call-id"], "my-own")
    a = cluster.call("POST", "/function/absent", b"")
    equal(a.status, 404)


@scenario
def the_list_counts_calls():
    [entry] = system("GET", "/functions?namespace=openfaas-fn").json
    assert entry["invocationCount"] >= 3, entry
    equal(entry["replicas"], 1)


@scenario
def scale_takes_the_namespace_from_the_body_or_the_query():
    equal(system("POST", "/scale-function/hello", {"serviceName": "hello", "replicas": 2, "namespace": "openfaas-fn"}).status, 202)
    equal(status_of("hello")["replicas"], 2, "replicas as soon as the call returned")
    wait_until("2 available", lambda: status_of("hello").get("availableReplicas", 0) == 2, 20)
    equal(system("POST", "/scale-function/hello?namespace=openfaas-fn", {"serviceName": "hello", "replicas": 1}).status, 202)
    wait_until("1 available", lambda: status_of("hello").get("availableReplicas", 0) == 1, 20)


@scenario
def ten_requests_a_second_bring_a_second_replica():
    equal(system("POST", "/functions", {"service": "rate", "image": HELLO}).status, 202)
    begin, sent = time.monotonic(), 0
    while status_of("rate").get("availableReplicas", 0) < 2:
        assert time.monotonic() - begin < 30, status_of("rate")
        equal(cluster.call("POST", "/function/rate", b"").status, 200)
        sent += 1
        time.sleep(max(0, begin + sent * 0.1 - time.monotonic()))
    equal(system("DELETE", "/functions", {"functionName": "rate"}).status, 202)


@scenario
def secrets_are_created_mounted_updated_and_removed():
    both = {"name": "token", "namespace": "", "value": "abc", "rawValue": base64.b64encode(b"abc").decode()}
    equal(system("POST", "/secrets", both).status, 202)
    equal(system("POST", "/secrets", both).status, 409)
    listed = system("GET", "/secrets").json
    equal([s["name"] for s in listed], ["token"])
    assert "value" not in listed[0], listed
    reader = {"service": "reader", "image": TOOLS, "envProcess": "/bin/cat /var/openfaas/secrets/token", "secrets": ["token"]}
    equal(system("POST", "/functions", {**reader, "secrets": ["absent"]}).status, 400)
    equal(system("PUT", "/secrets", {"name": "token", "value": "xyz"}).status, 202)
    equal(system("PUT", "/secrets", {"name": "nothing", "value": "x"}).status, 404)
    equal(system("DELETE", "/secrets", {"name": "token"}).status, 202)
    equal(system("DELETE", "/secrets", {"name": "token"}).status, 404)


@scenario
def a_file_of_any_bytes_is_a_secret():
    """--from-file sends the bytes as rawValue and, as far as a string can hold them, as value."""
    data = b"bin\0ary\xff"
    body = {"name": "bytes", "value": data.decode(errors="replace"), "rawValue": base64.b64encode(data).decode()}
    equal(system("POST", "/secrets", body).status, 202)
    equal(system("PUT", "/secrets", body).status, 202)
    reader = {"service": "bytes", "image": HELLO, "secrets": ["bytes"], "labels": {}, "annotations": {}}
    equal(system("POST", "/functions", reader).status, 202)
    wait_until("it has started", lambda: status_of("bytes").get("availableReplicas", 0) == 1, 20)
    [(node, container)] = cluster.containers("bytes", running_only=True)
    with open(f"/proc/{node.engine.pid_of(container['Id'])}/root/var/openfaas/secrets/bytes", "rb") as f:
        equal(f.read(), data)
    equal(system("DELETE", "/secrets", {"name": "bytes"}).status, 202, "removal of a secret in use")
    equal(system("DELETE", "/functions", {"functionName": "bytes"}).status, 202)


@scenario
def what_was_deployed_is_what_diff_compares():
    sent = {"service": "same", "image": HELLO, "envProcess": "/bin/env -x", "envVars": {"COLOR": "blue", "EMPTY": ""},
            "constraints": ["kubernetes.io/arch != vax", "node.platform.os == linux"], "labels": {"team": "a"},
            "annotations": {"note": "x y", "topic": "a,b"}, "limits": {"memory": "64Mi", "cpu": "100m"},
            "requests": {"memory": "64Mi", "cpu": "100m"}, "readOnlyRootFilesystem": True}
    equal(system("PUT", "/functions", sent).status, 404)
    equal(system("POST", "/functions", sent).status, 202)
    [seen] = [f for f in system("GET", "/functions").json if f["name"] == "same"]
    equal({k: seen.get(k) for k in sent if k != "service"}, {k: v for k, v in sent.items() if k != "service"})
    wait_until("its constraints hold", lambda: status_of("same").get("availableReplicas", 0) == 1, 20)
    equal(system("DELETE", "/functions", {"functionName": "same", "namespace": ""}).status, 202)


@scenario
def ready_finds_a_replica_of_what_may_sleep():
    labels = {"com.openfaas.scale.zero": "true", "com.openfaas.scale.zero-duration": "1s"}
    equal(system("POST", "/functions", {"service": "sleepy", "image": HELLO, "labels": labels}).status, 202)
    equal(status_of("sleepy")["replicas"], 1)
    wait_until("it is ready", lambda: status_of("sleepy").get("availableReplicas", 0) == 1, 20)
    wait_until("it sleeps", lambda: "replicas" not in status_of("sleepy"), 30)
    equal(cluster.call("POST", "/function/sleepy.openfaas-fn", b"you").text, "Hello, you!\n")


@scenario
def logs_are_followed_until_the_function_is_removed():
    seen = []

    def follow():
        seen.append(system("GET", "/logs?follow=true&name=sleepy&tail=-1"))

    reader = threading.Thread(target=follow, daemon=True)
    reader.start()
    reader.join(1)
    assert reader.is_alive(), seen
    equal(system("DELETE", "/functions", {"functionName": "sleepy"}).status, 202)
    reader.join(10)
    assert not reader.is_alive(), "the stream goes on"
    equal(seen[0].status, 200)
    assert "listening" in seen[0].text, seen
    equal(system("GET", "/logs?follow=false&name=sleepy").status, 404)


@scenario
def namespaces_are_created_and_removed():
    equal(system("POST", "/namespace/", {"name": "staging", "labels": {"a": "b"}}).status, 201)
    equal(system("POST", "/namespace/", {"name": "staging"}).status, 409)
    assert {"openfaas-fn", "staging"} <= set(system("GET", "/namespaces").json)
    equal(system("POST", "/functions", {"service": "hello", "image": HELLO, "namespace": "staging"}).status, 202)
    wait_until("it answers in its namespace", lambda: cluster.call("POST", "/function/hello.staging", b"").status == 200, 20)
    equal(system("DELETE", "/functions", {"functionName": "hello", "namespace": "staging"}).status, 202)
    wait_until("it is gone", lambda: system("GET", "/function/hello?namespace=staging").status == 404, 10)
    equal(system("DELETE", "/namespace/staging", {"name": "staging"}).status, 202)


class Callbacks(http.server.BaseHTTPRequestHandler):
    seen = []

    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        Callbacks.seen.append(({k.lower(): v for k, v in self.headers.items()}, body))
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *args):
        pass


@scenario
def an_async_call_is_accepted_and_its_answer_is_called_back():
    server = http.server.ThreadingHTTPServer((cluster.address, 0), Callbacks)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    url = f"http://{cluster.address}:{server.server_port}/back"
    equal(cluster.call("POST", "/async-function/absent.openfaas-fn", b"").status, 404)
    a = cluster.call("POST", "/async-function/hello.openfaas-fn", b"later", {"X-Callback-Url": url})
    equal((a.status, a.body), (202, b""))
    call_id = a.headers["x-call-id"]
    wait_until("the callback", lambda: Callbacks.seen, 20)
    server.shutdown()
    headers, body = Callbacks.seen[0]
    equal(body, b"Hello, later!\n")
    equal((headers["x-call-id"], headers["x-function-status"]), (call_id, "200"))
    assert float(headers["x-duration-seconds"]) >= 0 and headers["x-function-name"] == "hello.openfaas-fn", headers


@scenario
def logs_are_lines_of_json():
    a = system("GET", "/logs?name=hello&namespace=openfaas-fn&tail=-1&follow=false")
    equal(a.status, 200)
    assert a.headers["content-type"].startswith("application/x-ndjson"), a.headers
    lines = [json.loads(line) for line in a.text.splitlines()]
    assert any("listening" in line["text"] for line in lines), lines
    assert all({"name", "namespace", "instance", "timestamp", "text"} <= set(line) for line in lines), lines


@scenario
def metrics_have_the_names_that_openfaas_dashboards_use():
    names = {name for name, _ in cluster.metrics()}
    for name in ("gateway_function_invocation_total", "gateway_functions_seconds_count", "gateway_service_count"):
        assert name in names, f"{name} not in {sorted(names)}"


@scenario
def remove_takes_it_away():
    equal(system("DELETE", "/functions", {"functionName": "hello"}).status, 202)
    equal(system("DELETE", "/functions", {"functionName": "hello"}).status, 404)
    wait_until("no container", lambda: not cluster.containers(), 20)
    equal(system("GET", "/function/hello").status, 404)


main(up, lambda: cluster and cluster.down(), lambda: cluster and cluster.show_logs())
