"""Two nodes with engines of their own: from zero, up, down to zero, and what is reported about it."""
import concurrent.futures
import filecmp
import http.client
import json
import os
import time

from cluster import HELLO, TOOLS, Cluster, metric_sum, metrics_of, run
from scenario import equal, main, scenario, wait_until
from usage import cgroup_usage

cluster = None


def up():
    global cluster
    cluster = Cluster(nodes=2)
    cluster.up()


def ready(name, count):
    status = cluster.describe(name)["status"]
    return status["ready"] == count and status["wanted"] == count


def server_timing(answer):
    parts = (p.strip().split(";dur=") for p in answer.headers["server-timing"].split(","))
    return {name: float(ms) for name, ms in parts}


def nothing_runs():
    return not cluster.containers()


@scenario
def a_request_that_meets_no_replica_waits_for_one_and_is_answered():
    cluster.deploy("hello", scale={"idle": "1s"})
    equal(cluster.containers("hello"), [], "containers before the first request")
    equal(cluster.describe("hello")["status"]["phase"], "asleep")
    begin = time.monotonic()
    answer = cluster.invoke("hello", body=b"Davit")
    took = time.monotonic() - begin
    equal((answer.status, answer.text), (200, "Hello, Davit!\n"))
    for header in ("x-call-id", "server-timing"):
        assert header in answer.headers, f"no {header} in {answer.headers}"
    timing = server_timing(answer)
    assert timing["start"] > 20 and timing["queue"] < 1, f"the wait was a start: {timing}"
    timing = server_timing(cluster.invoke("hello"))
    assert timing["start"] < 20, f"nothing had to start: {timing}"
    equal(len(cluster.containers("hello")), 1, "containers after it")
    assert took < 5, f"from zero took {took:.1f} s"
    wait_until("zero again after 1 s of idleness", nothing_runs, 20)


@scenario
def replicas_land_on_both_nodes():
    cluster.deploy("spread", scale={"min": 4})
    wait_until("4 replicas ready", lambda: ready("spread", 4), 30)
    counts = [len(n.engine.containers("dev.davit.function=spread.default", True)) for n in cluster.nodes]
    equal(counts, [2, 2], "containers per node")
    for node in cluster.api("GET", "/v1/nodes").json["nodes"]:
        equal(node["replicas"], 2, f"replicas that {node['name']} is said to have")
    cluster.remove("spread")


@scenario
def two_hundred_requests_at_once_scale_a_function_to_its_max_and_all_are_answered():
    most = 6
    cluster.deploy("burst", scale={"concurrency": 1, "max": most, "idle": "5s"})
    seen = set()
    with concurrent.futures.ThreadPoolExecutor(201) as pool:
        calls = [pool.submit(cluster.invoke, "burst", "?ms=50") for _ in range(200)]
        while not all(c.done() for c in calls):
            seen.add(len(cluster.containers("burst", running_only=True)))
            time.sleep(0.05)
    equal([c.result().status for c in calls], [200] * 200)
    equal(max(seen), most, f"most containers at once (seen {sorted(seen)})")
    wait_until("zero containers on both engines after 5 s of idleness", nothing_runs, 30)
    equal(cluster.describe("burst")["status"]["phase"], "asleep")


@scenario
def the_scale_api_moves_replicas_and_gives_them_back():
    cluster.deploy("moved", scale={"idle": "1s", "max": 5})
    equal(cluster.api("POST", "/v1/functions/moved/scale", {"replicas": 3}).status, 200)
    wait_until("3 replicas ready", lambda: ready("moved", 3), 20)
    equal(cluster.api("POST", "/v1/functions/moved/scale", {"replicas": 6}).status, 400, "more than max")
    equal(cluster.api("POST", "/v1/functions/moved/scale", {"replicas": None}).status, 200)
    wait_until("the autoscaler took them back to zero", nothing_runs, 20)
    cluster.remove("moved")


@scenario
def describe_and_metrics_agree_with_the_engines_and_the_cgroup_files():
    cluster.deploy("agree", scale={"min": 2}, limits={"memory": "64Mi"})
    wait_until("2 replicas ready", lambda: ready("agree", 2), 20)
    for _ in range(20):
        equal(cluster.invoke("agree", "?work=5").status, 200)

    def replicas_agree():
        replicas = {r["container"]: r for r in cluster.describe("agree")["replicas"]}
        containers = {c["Id"]: (n, c) for n, c in cluster.containers("agree")}
        equal(sorted(replicas), sorted(containers), "containers of describe and of docker ps")
        equal(sum(r["requests"] for r in replicas.values()), 20, "requests served")
        for container, r in replicas.items():
            node, c = containers[container]
            equal(r["node_name"], node.name)
            equal(c["State"], "running")
            equal(c["Labels"]["dev.davit.replica"], r["id"])
            usage = cgroup_usage(node.engine.pid_of(container))
            assert abs(r["memory_bytes"] - usage["memory"]) <= 1 << 20, f"memory {r['memory_bytes']} but {usage['memory']}"
            assert abs(r["cpu_us"] - usage["cpu_us"]) <= 20000, f"cpu {r['cpu_us']} us but {usage['cpu_us']} us"
            equal(usage["limit"], 64 << 20, "memory limit in the cgroup")
        return True

    wait_until("describe, docker ps and the cgroup files agree", replicas_agree, 10, every=0.5)
    seen = cluster.metrics()
    equal(metric_sum(seen, "davit_function_replicas_ready", function_name="agree.default"), 2)
    equal(running_in(seen, "davit_replicas"), len(cluster.containers(running_only=True)))
    equal(metric_sum(seen, "davit_nodes", state="ready"), 2)
    for node in cluster.nodes:
        mine, running = node.metrics(), node.engine.containers("dev.davit.node", True)
        equal(running_in(mine, "davit_agent_replicas"), len(running), f"replicas that run in {node.name}'s metrics")
        for c in running:
            told = metric_sum(mine, "davit_agent_replica_memory_bytes", replica=c["Labels"]["dev.davit.replica"])
            real = cgroup_usage(node.engine.pid_of(c["Id"]))["memory"]
            assert abs(told - real) <= 1 << 20, f"memory of a replica: {told} told, {real} in its cgroup"
    cluster.remove("agree")


def running_in(metrics, name):
    return sum(metric_sum(metrics, name, state=s) for s in ("warm", "frozen"))


@scenario
def any_command_in_any_image_is_a_function():
    cluster.deploy("wc", image=TOOLS, protocol="stdio", command=["/bin/wc", "-c"], scale={"max": 3})
    for body, wanted in ((b"hello", "5"), (b"", "0"), (b"x" * 100000, "100000")):
        answer = cluster.invoke("wc", body=body)
        equal((answer.status, answer.text.strip()), (200, wanted))
    with concurrent.futures.ThreadPoolExecutor(20) as pool:
        answers = list(pool.map(lambda n: cluster.invoke("wc", body=b"y" * n).text.strip(), range(20)))
    equal(answers, [str(n) for n in range(20)])
    cluster.remove("wc")


@scenario
def secrets_and_environment_reach_the_function():
    equal(cluster.api("POST", "/v1/secrets", {"name": "key", "value": "s3cret"}).status, 201)
    cluster.deploy("peek", image=TOOLS, protocol="stdio", secrets=["key"], env={"COLOR": "blue"},
                   command=["/bin/sh", "-c", "/bin/cat /var/openfaas/secrets/key; echo \" $COLOR\""])
    equal(cluster.invoke("peek").text, "s3cret blue\n")
    listing = cluster.api("GET", "/v1/secrets").text + cluster.api("GET", "/v1/functions/peek").text
    assert "s3cret" not in listing, "a secret's value is shown"
    cluster.remove("peek")
    equal(cluster.api("DELETE", "/v1/secrets/key").status, 204)


@scenario
def bodies_of_many_megabytes_pass_both_ways():
    cluster.deploy("echo", image=TOOLS, protocol="stdio", command=["/bin/cat"])
    there, back = f"{cluster.directory}/there", f"{cluster.directory}/back"
    with open(there, "wb") as f:
        f.write(os.urandom(1 << 20) * 24)
    # curl reads the answer while it still sends, as the function begins to answer before it has read all
    equal(run("curl", "-sS", "-o", back, "-w", "%{http_code}", "--data-binary", f"@{there}", f"{cluster.url}/function/echo"), "200")
    assert filecmp.cmp(there, back, shallow=False), f"{os.path.getsize(back)} bytes came back, others than those sent"
    cluster.remove("echo")


@scenario
def a_new_version_replaces_the_old_one_without_a_failed_request():
    cluster.deploy("rolled", image=TOOLS, protocol="stdio", command=["/bin/sh", "-c", "echo one"], scale={"min": 1, "idle": "1s"})
    wait_until("ready", lambda: ready("rolled", 1), 20)
    equal(cluster.invoke("rolled").text, "one\n")
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        ending = time.monotonic() + 30
        answers = []

        def call_until_new():
            while time.monotonic() < ending:
                a = cluster.invoke("rolled")
                answers.append((a.status, a.text))
                if a.text == "two\n":
                    return True
            return False

        callers = [pool.submit(call_until_new) for _ in range(4)]
        a = cluster.api("PUT", "/v1/functions/rolled", {"name": "rolled", "image": TOOLS, "protocol": "stdio",
                                                        "command": ["/bin/sh", "-c", "echo two"], "scale": {"min": 1, "idle": "1s"}})
        equal(a.status, 200)
        assert all(c.result() for c in callers), "the new version never answered"
    wrong = [a for a in answers if a not in ((200, "one\n"), (200, "two\n"))]
    equal(wrong, [], "answers during the change")
    wait_until("one container, of the new version", lambda: len(cluster.containers("rolled")) == 1, 20)
    cluster.remove("rolled")


@scenario
def a_drained_node_empties_without_a_failed_request():
    cluster.deploy("drained", scale={"min": 2})
    wait_until("2 replicas ready", lambda: ready("drained", 2), 20)
    first = cluster.nodes[0]
    statuses = []
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        going = [True]

        def call():
            while going[0]:
                statuses.append(cluster.invoke("drained", "?ms=20").status)

        caller = pool.submit(call)
        try:
            equal(cluster.api("POST", f"/v1/nodes/{first.name}/drain").status, 200)
            wait_until("the drained node is empty", lambda: not first.engine.containers(), 30)
            wait_until("2 replicas elsewhere", lambda: ready("drained", 2), 20)
        finally:
            going[0] = False
        caller.result()
    equal(set(statuses), {200}, "answers during the drain")
    equal(cluster.api("POST", f"/v1/nodes/{first.name}/uncordon").status, 200)
    wait_until("both nodes ready", lambda: cluster.ready_nodes() == 2, 10)
    cluster.remove("drained")


@scenario
def logs_are_told_with_the_replica_that_wrote_them():
    cluster.deploy("talk", image=TOOLS, protocol="http",
                   entrypoint=["/bin/sh", "-c", "echo first line; echo second line >&2; exec /hello"])
    equal(cluster.invoke("talk").status, 200)

    def told():
        lines = [json.loads(line) for line in cluster.api("GET", "/v1/functions/talk/logs").text.splitlines()]
        return {(x["stream"], x["text"]) for x in lines} >= {("stdout", "first line"), ("stderr", "second line")}

    wait_until("both lines are told", told, 10)
    cluster.remove("talk")


@scenario
def the_accepted_requests_of_a_deleted_function_go_with_it():
    def backlog():
        metrics = metrics_of(http.client.HTTPConnection(cluster.address, 8082, timeout=10))
        return metrics.get(("davit_async_backlog", (("function", "leaving.default"),)))
    cluster.deploy("leaving", scale={"min": 1, "max": 1, "concurrency": 1})
    wait_until("a replica is ready", lambda: ready("leaving", 1), 30)
    for _ in range(10):
        equal(cluster.call("POST", "/async-function/leaving?ms=8000", b"x").status, 202)
    wait_until("one runs, the others wait", lambda: backlog() == 10, 10)
    equal(cluster.api("DELETE", "/v1/functions/leaving").status, 204)
    # Otherwise when the one that runs has ended, or at the look for what was missed, half a minute away.
    wait_until("none of them waits any more", lambda: (backlog() or 0) <= 1, 4)
    cluster.remove("leaving")



main(up, lambda: cluster and cluster.down(), lambda: cluster and cluster.show_logs())
