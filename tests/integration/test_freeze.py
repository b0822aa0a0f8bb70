"""Idle replicas on a real engine: frozen, thawed by a request, and ended well whatever happens to them meanwhile.

The control groups are this machine's own; test_freeze_v2.py runs the same in a place of its own with version 2."""
import concurrent.futures
import http.client
import os
import signal
import time

from cluster import TOOLS, Cluster, metric_sum
from scenario import equal, main, scenario, wait_until

cluster = None


def up():
    global cluster
    cluster = Cluster(nodes=1)
    cluster.up()


def node():
    return cluster.nodes[0]


def containers(name):
    return [c["Id"] for _, c in cluster.containers(name, running_only=True)]


def group_of(pid):
    """The directory in which the process is frozen, and the file that says so."""
    with open(f"/proc/{pid}/cgroup") as f:
        lines = [line.rstrip("\n").split(":", 2) for line in f]
    if os.path.exists("/sys/fs/cgroup/cgroup.controllers"):
        path = next(p for n, _, p in lines if n == "0")
        return "/sys/fs/cgroup" + path, "cgroup.events"
    path = next(p for _, names, p in lines if "freezer" in names.split(","))
    return "/sys/fs/cgroup/freezer" + path, "freezer.state"


def is_frozen(container):
    directory, file = group_of(node().engine.pid_of(container))
    with open(f"{directory}/{file}") as f:
        text = f.read()
    return "frozen 1" in text or text.strip() == "FROZEN"


def cpu_us(container):
    directory, _ = group_of(node().engine.pid_of(container))
    if os.path.exists(f"{directory}/cpu.stat"):
        with open(f"{directory}/cpu.stat") as f:
            return int(dict(line.split() for line in f)["usage_usec"])
    with open(directory.replace("/freezer/", "/cpuacct/") + "/cpuacct.usage") as f:
        return int(f.read()) // 1000


def wait_frozen(name, seconds=5):
    wait_until(f"the replica of {name} is frozen", lambda: [c for c in containers(name) if is_frozen(c)], seconds, every=0.01)
    return containers(name)[0]


def state_of(name):
    return [r["state"] for r in cluster.describe(name)["replicas"]]


def agent_metric(name, **labels):
    return metric_sum(node().metrics(), name, **labels)


def start_ms(answer):
    parts = (p.strip().split(";dur=") for p in answer.headers["server-timing"].split(","))
    return float(dict(parts)["start"])


@scenario
def an_idle_replica_is_frozen_and_a_request_thaws_it():
    cluster.deploy("idle")
    equal(cluster.invoke("idle", body=b"one").text, "Hello, one!\n")
    begin = time.monotonic()
    container = wait_frozen("idle")
    took = time.monotonic() - begin
    assert 0.7 < took < 2.5, f"frozen after {took:.2f} s of idleness, its time is 1 s"
    wait_until("describe says so", lambda: state_of("idle") == ["frozen"], 3)
    equal(metric_sum(cluster.metrics(), "davit_replicas", state="frozen"), 1)
    equal(agent_metric("davit_agent_replicas", state="frozen"), 1)
    status = cluster.describe("idle")["status"]
    equal((status["ready"], status["wanted"]), (1, 1), "a frozen replica is a ready one")
    answer = cluster.invoke("idle", body=b"two")
    equal((answer.status, answer.text), (200, "Hello, two!\n"))
    assert not is_frozen(container)
    equal(containers("idle"), [container], "the same container answers")
    assert start_ms(answer) < 20, f"its start was a thaw: {answer.headers['server-timing']}"
    wait_frozen("idle")
    cluster.remove("idle")


@scenario
def what_a_thaw_costs_is_small_and_measured():
    """Requests of one client, in turns warm and frozen; medians."""
    cluster.deploy("quick", scale={"freeze": "20ms", "idle": "1h"})
    connection = http.client.HTTPConnection(cluster.address, 8080, timeout=10)
    times = {"warm": [], "frozen": []}

    def ask(kind):
        begin = time.perf_counter()
        connection.request("GET", "/function/quick")
        r = connection.getresponse()
        r.read()
        equal(r.status, 200)
        times[kind].append((time.perf_counter() - begin) * 1000)

    cluster.invoke("quick")
    for _ in range(30):
        wait_until("frozen", lambda: agent_metric("davit_agent_replicas", state="frozen") == 1, 5, every=0.01)
        ask("frozen")
        ask("warm")
    frozen, warm = (sorted(times[k])[15] for k in ("frozen", "warm"))
    print(f"warm {warm:.2f} ms, frozen {frozen:.2f} ms: {frozen - warm:.2f} ms over warm")
    assert frozen - warm < 20, f"a thaw costs {frozen - warm:.2f} ms"  # a machine that does other things, too
    thaws = agent_metric("davit_agent_thaw_seconds_count")
    assert thaws >= 30, f"{thaws} thaws counted"
    print(f"in the agent {agent_metric('davit_agent_thaw_seconds_sum') / thaws * 1e6:.0f} us from the request to the thaw")
    cluster.remove("quick")


@scenario
def what_runs_in_the_background_gets_no_processor_while_frozen():
    spin = ["/bin/sh", "-c", "(while :; do :; done) & exec /hello"]
    cluster.deploy("spin", image=TOOLS, entrypoint=spin, scale={"freeze": "200ms"})
    cluster.deploy("always", image=TOOLS, entrypoint=spin, scale={"freeze": "200ms"}, cpu="always")
    equal(cluster.invoke("spin").status, 200)
    equal(cluster.invoke("always").status, 200)
    container, awake = wait_frozen("spin"), containers("always")[0]
    before, awake_before = cpu_us(container), cpu_us(awake)
    time.sleep(1)
    grew, awake_grew = cpu_us(container) - before, cpu_us(awake) - awake_before
    equal(grew, 0, "processor time of the frozen one")
    assert awake_grew > 10000, f"the one with a processor always got {awake_grew} us of a second"
    assert not is_frozen(awake)
    wait_until("usage is still told", lambda: agent_metric("davit_agent_replica_cpu_seconds_total", function="spin.default") > 0, 5)
    cluster.remove("spin")
    cluster.remove("always")


@scenario
def the_command_line_says_when():
    cluster.cli("deploy", "said", "--image", TOOLS, "--freeze", "300ms", "--entrypoint", "/hello")
    cluster.invoke("said")
    wait_frozen("said")
    assert "after 300ms without requests" in cluster.cli("describe", "said").stdout
    cluster.cli("deploy", "said", "--image", TOOLS, "--cpu-always", "--entrypoint", "/hello")
    assert "never" in cluster.cli("describe", "said").stdout
    cluster.remove("said")


@scenario
def requests_that_race_with_freezes_are_all_answered():
    cluster.deploy("race", scale={"freeze": "10ms", "max": 1, "concurrency": 10, "idle": "1h"})
    cluster.invoke("race")
    before = agent_metric("davit_agent_freezes_total")

    def one(i):
        time.sleep(0.0101 * (i % 10))
        return cluster.invoke("race", body=b"x").status

    for pause in (0.009, 0.010, 0.011, 0.012, 0.015):
        with concurrent.futures.ThreadPoolExecutor(4) as pool:
            equal(set(pool.map(one, range(20))), {200})
        time.sleep(pause)
    for i in range(60):
        equal(cluster.invoke("race").status, 200)
        time.sleep(0.008 + 0.0001 * i)
    freezes = agent_metric("davit_agent_freezes_total") - before
    assert freezes >= 10, f"only {freezes} freezes were raced with"
    cluster.remove("race")


@scenario
def a_long_request_is_never_frozen():
    cluster.deploy("long", scale={"freeze": "50ms"})
    cluster.invoke("long")
    wait_frozen("long")
    answer = cluster.invoke("long", "?work=700")
    equal(answer.status, 200)
    assert start_ms(answer) < 50
    cluster.remove("long")


@scenario
def a_frozen_replica_scales_to_zero_and_ends_by_itself():
    ending = ["/bin/sh", "-c", "trap 'echo ended well; exit 0' TERM; /hello & wait"]
    cluster.deploy("zero", image=TOOLS, entrypoint=ending, scale={"freeze": "50ms", "idle": "1500ms"}, grace="5s")
    cluster.invoke("zero")
    wait_frozen("zero")
    begin = time.monotonic()
    wait_until("no container", lambda: not cluster.containers("zero"), 15)
    assert time.monotonic() - begin < 5, "it had to be killed"
    logs = cluster.cli("logs", "zero").stdout
    assert "ended well" in logs, f"its last words: {logs!r}"
    cluster.remove("zero")


@scenario
def docker_stop_of_a_frozen_container_ends_it_with_exit_code_0():
    ending = ["/bin/sh", "-c", "trap 'exit 0' TERM; /hello & wait"]
    cluster.deploy("stopped", image=TOOLS, entrypoint=ending, scale={"freeze": "50ms"})
    cluster.invoke("stopped")
    container = wait_frozen("stopped")
    begin = time.monotonic()
    equal(node().engine.call("POST", f"/containers/{container}/stop?t=8").status, 204)
    took = time.monotonic() - begin
    assert took < 5, f"docker stop took {took:.1f} s: the signal did not reach it"
    wait_until("the agent has seen it end by itself", lambda: "ended with exit code 0" in node().agent.tail(), 5)
    wait_until("another replica answers", lambda: cluster.invoke("stopped").status == 200, 15)
    cluster.remove("stopped")


@scenario
def a_program_can_be_run_inside_a_frozen_container():
    cluster.deploy("inside", image=TOOLS, entrypoint=["/hello"], scale={"freeze": "50ms"})
    cluster.invoke("inside")
    container = wait_frozen("inside")
    for _ in range(2):  # the second finds it awake
        made = node().engine.call("POST", f"/containers/{container}/exec", {"Cmd": ["/bin/busybox", "true"]}).json
        time.sleep(0.05)
        node().engine.call("POST", f"/exec/{made['Id']}/start", {"Detach": True})
        wait_until("it ran", lambda: node().engine.call("GET", f"/exec/{made['Id']}/json").json["ExitCode"] == 0, 5)
    cluster.remove("inside")


@scenario
def an_agent_that_is_killed_finds_its_replicas_frozen_and_serves_again():
    cluster.deploy("survivor")
    cluster.invoke("survivor")
    container = wait_frozen("survivor")
    node().agent.kill(signal.SIGKILL).popen.wait()
    assert is_frozen(container)
    node().start_agent()
    wait_until("the next agent has taken it over", lambda: agent_metric("davit_agent_replicas_adopted_total") >= 1, 15)
    assert is_frozen(container), "it was woken for nothing"
    cluster.wait_ready()
    equal(cluster.invoke("survivor").status, 200)
    equal(containers("survivor"), [container], "the same container answers")
    cluster.remove("survivor")


@scenario
def a_replica_out_of_a_pool_is_frozen_as_any_other_and_outlives_its_agent():
    cluster.deploy("pooled", scale={"primed": 1, "freeze": "100ms", "idle": "1h"})
    wait_until("a sandbox is primed", lambda: node().engine.containers("dev.davit.pool", True), 20)
    cluster.invoke("pooled")
    wait_until("it is frozen", lambda: state_of("pooled") == ["frozen"], 5)
    container = cluster.describe("pooled")["replicas"][0]["container"]
    assert is_frozen(container)
    equal(cluster.invoke("pooled").status, 200)
    wait_until("it is frozen again", lambda: is_frozen(container), 5)
    node().agent.kill(signal.SIGKILL).popen.wait()
    node().start_agent()
    cluster.wait_ready()
    wait_until("it has been taken over", lambda: agent_metric("davit_agent_replicas_adopted_total") >= 1, 15)
    equal(cluster.invoke("pooled").status, 200)
    equal(cluster.describe("pooled")["replicas"][0]["container"], container, "the container that answers")
    cluster.api("DELETE", "/v1/functions/pooled")
    wait_until("its container is gone", lambda: container not in [c["Id"] for c in node().engine.containers()], 30)


@scenario
def an_agent_that_stops_leaves_nothing_frozen():
    cluster.deploy("left")
    cluster.invoke("left")
    container = wait_frozen("left")
    node().agent.stop()
    assert not is_frozen(container)
    node().start_agent()
    cluster.wait_ready()
    wait_until("it is frozen again", lambda: is_frozen(container), 15)
    equal(cluster.invoke("left").status, 200)
    cluster.remove("left")


if __name__ == "__main__":
    main(up, lambda: cluster and cluster.down(), lambda: cluster and cluster.show_logs())
