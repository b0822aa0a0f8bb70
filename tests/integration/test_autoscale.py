"""What makes replicas, on a real engine: load, a metrics endpoint of the test's own, the replicas' own, and endpoints
that hang or lie, which change nothing."""
import http.server
import json
import os
import subprocess
import threading
import time

from cluster import BIN, HELLO, TOOLS, Cluster
from scenario import Skip, equal, main, scenario, wait_until

LOAD = os.path.join(os.path.dirname(BIN), "bench/davit-load")
FAST = {"window": "6s", "down": "1s", "idle": "3s", "max": 6}  # short memories, so that tests are short
cluster = endpoint = None


class Endpoint:
    """A metrics endpoint that says what it is told to; `how` may make it misbehave."""

    def __init__(self, address):
        self.value, self.how, self.asked = "0", "well", 0
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                outer.asked += 1
                try:
                    outer.answer(self)
                except OSError:
                    pass  # the reader had enough

            def log_message(self, *args):
                pass

        self.server = http.server.ThreadingHTTPServer((address, 0), Handler)
        self.server.daemon_threads = True
        self.url = f"http://{address}:{self.server.server_address[1]}/metrics"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def text(self):
        return f'# TYPE jobs gauge\njobs{{queue="mail"}} {self.value}\njobs{{queue="sms"}} 1000\n'.encode()

    def answer(self, r):
        if self.how == "hang":
            time.sleep(20)
            return
        if self.how == "error":
            r.send_error(500)
            return
        if self.how == "redirect":
            r.send_response(302)
            r.send_header("Location", self.url)
            r.end_headers()
            return
        body = self.text()
        if self.how == "garbage":
            body = b"\x00\xffjobs is forty\n" + body
        if self.how == "flood":
            body = b"other 1\n" * 1250000 + body  # ten megabytes
        if self.how == "cut":
            body = body[:-4]
        r.send_response(200)
        r.send_header("Content-Type", "text/plain; version=0.0.4")
        r.end_headers()
        for i in range(0, len(body), 1 if self.how == "drip" else len(body)):
            r.wfile.write(body[i : i + (1 if self.how == "drip" else len(body))])
            if self.how == "drip":
                time.sleep(0.3)


def up():
    global cluster, endpoint
    cluster = Cluster(nodes=1)
    cluster.up()
    endpoint = Endpoint(cluster.address)


def status(name):
    return cluster.describe(name)["status"]


def asked(name):
    return decisions(name)["asked"]


def ready(name, n):
    s = status(name)
    return s["ready"] == n and s["wanted"] == n


def decisions(name):
    a = cluster.api("GET", f"/v1/functions/{name}/decisions")
    equal(a.status, 200, "decisions")
    return a.json


def metric(**more):
    return {"name": "jobs", "url": endpoint.url, "labels": {"queue": "mail"}, "target": 10, "interval": "1s",
            "timeout": "500ms", **more}


@scenario
def a_step_to_three_hundred_requests_a_second_settles_within_five_seconds_without_a_failed_request():
    if not os.access(LOAD, os.X_OK):
        raise Skip(f"{LOAD} was not built")
    cluster.deploy("cold")
    begin = time.monotonic()
    equal(cluster.invoke("cold").status, 200)
    cold = time.monotonic() - begin
    cluster.remove("cold")
    patience = max(5, 15 * cold)  # a start takes a third of a second; five, but on a machine that needs longer for one
    cluster.deploy("step", scale={"concurrency": 10, "max": 8, "idle": "5s"}, requests={"memory": "16Mi"})
    samples, stop = [], threading.Event()

    def watch():
        while not stop.wait(0.1):
            s = status("step")
            samples.append((time.monotonic() - begin, s["waiting"], s["ready"]))

    watcher = threading.Thread(target=watch)
    begin = time.monotonic()
    watcher.start()
    load = subprocess.run([LOAD, "-c", "128", "--rate", "300", "-w", str(patience), "-d", "4", "-X", "POST",
                           f"{cluster.url}/function/step?ms=50"], capture_output=True, text=True, timeout=120)
    took = time.monotonic() - begin
    stop.set()
    watcher.join()
    equal(load.returncode, 0, load.stderr)
    said = json.loads(load.stdout)
    equal(said["errors"], {}, "requests that failed")
    equal(status("step")["load"]["failed"], 0, "failures of the gateway's own")
    queued = [s[0] for s in samples if s[1] > 15 and s[0] < took]
    settled = max(queued, default=0)
    most = max(s[2] for s in samples)
    print(f"  step: cold start {cold:.2f} s, settled after {settled:.1f} s with {most} replicas; {said['requests']} requests"
          f" after it, p50 {said['p50_us'] / 1000:.1f} ms, p99 {said['p99_us'] / 1000:.1f} ms")
    assert most >= 2, f"replicas: {samples}"
    assert settled <= patience, f"a queue stays for {settled:.1f} s: {samples}"
    assert said["p50_us"] < 100_000, f"latencies once it is settled: {said}"
    cluster.remove("step")


@scenario
def a_metric_that_the_test_serves_drives_replicas_up_and_down():
    endpoint.value, endpoint.how = "0", "well"
    cluster.deploy("driven", scale={**FAST, "metrics": [metric()]})
    wait_until("the endpoint is asked", lambda: endpoint.asked > 0, 5)
    equal(status("driven")["phase"], "asleep", "nothing is to be done")
    endpoint.value = "12.5"
    wait_until("two replicas from zero", lambda: ready("driven", 2), 15)
    endpoint.value = "40"
    wait_until("four replicas", lambda: ready("driven", 4), 15)
    assert "metric jobs is 40, target 10" in status("driven")["scale_reason"], status("driven")
    endpoint.value = "10"
    wait_until("one replica", lambda: ready("driven", 1), 25)
    endpoint.value = "0"
    wait_until("zero", lambda: ready("driven", 0), 25)
    told = decisions("driven")["decisions"]
    seen = [(d["from"], d["to"], d["signal"]) for d in told]
    assert (0, 2, "metric") in seen and any(d["to"] == 4 and d["signal"] == "metric" for d in told), seen
    equal(told[-1]["to"], 0, "the last decision")
    four = next(d for d in told if d["to"] == 4)
    assert {"signal": "metric", "metric": "jobs", "replicas": 4} in four["signals"], four
    shown = cluster.cli("describe", "driven").stdout
    assert "metric jobs" in shown and endpoint.url in shown, shown
    cluster.remove("driven")


@scenario
def an_endpoint_that_hangs_or_lies_changes_nothing():
    endpoint.value, endpoint.how = "30", "well"
    cluster.deploy("lied-to", scale={**FAST, "metrics": [metric()]})
    wait_until("three replicas", lambda: ready("lied-to", 3), 15)
    lies = [("hang", "30"), ("drip", "30"), ("garbage", "90"), ("flood", "90"), ("error", "90"), ("redirect", "90"),
            ("cut", "9000"), ("well", "NaN"), ("well", "-5"), ("well", "+Inf"), ("well", "1e999"), ("well", "ninety")]
    for how, value in lies:
        endpoint.how, endpoint.value = how, value
        before = endpoint.asked
        wait_until(f"it is asked while it answers {how} {value}", lambda: endpoint.asked >= before + 2, 10)
        equal(asked("lied-to"), 3, f"replicas while it answers {how} {value}")
    # by now it has been silent for long enough to be stale
    wait_until("it says that the metric is stale", lambda: "stale for" in status("lied-to")["scale_reason"], 20)
    assert status("lied-to")["scale_reason"].endswith("keeps 3"), status("lied-to")
    held = [s for s in decisions("lied-to")["signals"] if s["signal"] == "metric"]
    assert held[0]["held"] and held[0]["replicas"] == 3, held
    equal(cluster.invoke("lied-to").status, 200, "it serves all the while")
    endpoint.how, endpoint.value = "well", "10"
    wait_until("one replica, once it makes sense again", lambda: ready("lied-to", 1), 25)
    cluster.remove("lied-to")


@scenario
def a_metric_of_the_replicas_themselves_is_read_by_their_node():
    script = ("mkdir -p /tmp/w && echo 'jobs 25' > /tmp/w/metrics && "
              "/bin/busybox httpd -p 9090 -h /tmp/w && exec /hello")
    cluster.deploy("own", TOOLS, entrypoint=["/bin/sh", "-c", script], cpu="always",
                   scale={**FAST, "metrics": [{"name": "jobs", "url": ":9090/metrics", "target": 20, "interval": "1s"}]})
    equal(cluster.invoke("own").status, 200)
    # 25 of each against 20: one more, and then they both have 25, and so on up to the maximum
    wait_until("the maximum", lambda: ready("own", 6), 40)
    held = [s for s in decisions("own")["signals"] if s["signal"] == "metric"]
    assert held and "metric jobs is" in held[0]["message"], held
    cluster.remove("own")


@scenario
def use_of_processors_makes_replicas():
    cluster.deploy("busy", limits={"cpu": "200m"}, scale={**FAST, "max": 3, "cpu": 50})
    ending = threading.Event()

    def work():
        while not ending.is_set():
            cluster.invoke("busy", "?work=20", timeout=30)

    workers = [threading.Thread(target=work) for _ in range(2)]
    for w in workers:
        w.start()
    try:
        wait_until("more replicas for cpu alone", lambda: any(
            d["signal"] == "cpu" and d["to"] > d["from"] for d in decisions("busy")["decisions"]), 40)
    finally:
        ending.set()
        for w in workers:
            w.join()
    cluster.remove("busy")


@scenario
def what_it_is_scaled_by_goes_through_a_file_and_back():
    path = f"{cluster.directory}/scaled.yaml"
    with open(path, "w") as f:
        f.write(f"""functions:
  - name: filed
    image: {HELLO}
    limits: {{cpu: 500m, memory: 64Mi}}
    scale:
      cpu: 70
      memory: 80
      window: 30s
      down: 2m
      up_rate: 4
      metrics:
        - {{name: queue_depth, url: "{endpoint.url}", labels: {{queue: mail}}, target: 2.5, aggregate: max, activation: 1e6}}
      schedule:
        - {{cron: "0 0 29 2 *", duration: 10h, min: 5, timezone: UTC}}
""")
    cluster.cli("apply", "-f", path)
    scale = cluster.describe("filed")["spec"]["scale"]
    equal({k: scale[k] for k in ("cpu", "memory", "window", "down", "up_rate")},
          {"cpu": 70, "memory": 80, "window": "30s", "down": "2m", "up_rate": 4})
    equal(scale["metrics"], [{"name": "queue_depth", "url": endpoint.url, "labels": {"queue": "mail"}, "target": 2.5,
                              "activation": 1000000, "aggregate": "max", "interval": "10s"}])
    equal(scale["schedule"], [{"cron": "0 0 29 2 *", "timezone": "UTC", "duration": "10h", "min": 5}])
    shown = cluster.cli("describe", "filed").stdout
    assert "queue_depth" in shown and "0 0 29 2 *" in shown, shown
    with open(path) as f:
        text = f.read()
    with open(path, "w") as f:
        f.write(text.replace("target: 2.5", "target: 0"))
    refused = cluster.cli("apply", "-f", path, check=False)
    assert refused.returncode != 0 and "scale.metrics[0].target" in refused.stdout + refused.stderr, refused
    cluster.remove("filed")


main(up, lambda: cluster and cluster.down(), lambda: cluster and cluster.show_logs())
