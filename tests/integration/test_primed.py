"""Primed sandboxes on a real engine: from zero without the engine, and nothing lost or doubled when the agent is killed."""
import concurrent.futures
import statistics
import time

from cluster import Cluster, metric_sum
from scenario import equal, main, scenario, wait_until
from usage import container_memory

cluster = None


def up():
    global cluster
    cluster = Cluster(nodes=1)
    cluster.up()
    cluster.deploy("pooled", scale={"primed": 3, "max": 3, "concurrency": 1, "idle": "1h"})
    wait_until("three are primed", lambda: ready() >= 3, 40)


def node():
    return cluster.nodes[0]


def ready():
    return metric_sum(node().metrics(), "davit_agent_primed_ready")


def replicas():
    return [r for r in cluster.describe("pooled")["replicas"] if r["state"] != "failed"]


def scale(**how):
    spec = cluster.describe("pooled")["spec"]
    spec["scale"] = {"primed": 3, "max": 3, "concurrency": 1, **how}
    equal(cluster.api("PUT", "/v1/functions/pooled", spec).status, 200)


def all_add_up():
    """Every container is a closed sandbox that the agent counts, or a replica that describe knows; each runs."""
    sandboxes = node().engine.containers("dev.davit.primed")
    mine = {r["container"] for r in replicas()}
    equal([c["State"] for c in node().engine.containers()], ["running"] * len(node().engine.containers()), "containers")
    closed = [c for c in sandboxes if c["Id"] not in mine]
    cold = [c for c in node().engine.containers() if "dev.davit.primed" not in c["Labels"]]
    equal({c["Id"] for c in cold} - mine, set(), "containers without owner")
    equal(mine - {c["Id"] for c in node().engine.containers()}, set(), "replicas without container")
    equal(ready(), len(closed), "closed ones that are ready")
    assert len(closed) >= 3, f"{len(closed)} closed ones"
    return True


@scenario
def a_sandbox_that_waits_costs_three_megabytes_at_most():
    engine = node().engine
    costs = [container_memory(engine.pid_of(c["Id"])) for c in engine.containers("dev.davit.primed")]
    equal(len(costs), 3, "sandboxes")
    assert statistics.median(sum(c.values()) for c in costs) <= 3_000_000, f"bytes of each: {costs}"


@scenario
def a_function_at_zero_is_opened_and_not_started():
    equal(cluster.invoke("pooled", body=b"you").text, "Hello, you!\n")
    replica = replicas()[0]
    equal(replica["times"]["create_us"] if "create_us" in replica["times"] else 0, 0, "create_us")
    wait_until("made again", all_add_up, 30, every=0.3)


@scenario
def a_killed_agent_finds_open_and_closed_ones_again():
    before = sorted(c["Id"] for c in node().engine.containers("dev.davit.primed"))
    node().agent.kill().popen.wait()
    node().start_agent()
    cluster.wait_ready()
    equal(cluster.invoke("pooled", body=b"you").text, "Hello, you!\n")
    wait_until("nothing is lost or doubled", all_add_up, 30, every=0.3)
    equal(sorted(c["Id"] for c in node().engine.containers("dev.davit.primed")), before, "sandboxes")


@scenario
def agents_killed_while_sandboxes_open_leave_nothing_behind():
    for pause in (0.0, 0.005, 0.05):
        scale(idle="200ms")
        wait_until("at zero", lambda: not replicas(), 40)
        wait_until("three are primed", lambda: ready() >= 3, 40)
        scale(idle="1h")
        with concurrent.futures.ThreadPoolExecutor(3) as pool:
            calls = [pool.submit(cluster.invoke, "pooled", body=b"you") for _ in range(3)]
            time.sleep(pause)
            node().agent.kill().popen.wait()
            node().start_agent()
            for call in calls:
                call.exception()  # some were inside when the agent died
        cluster.wait_ready()
        equal(cluster.invoke("pooled", body=b"you").text, "Hello, you!\n")
        wait_until("nothing is lost or doubled", all_add_up, 40, every=0.3)


@scenario
def a_killed_engine_takes_the_pool_along_and_it_is_made_anew():
    node().engine.process.kill()
    node().engine.start()
    node().engine.wait()
    cluster.wait_ready()
    wait_until("answered", lambda: cluster.invoke("pooled", body=b"you").status == 200, 60)
    wait_until("nothing is lost or doubled", all_add_up, 60, every=0.5)


@scenario
def a_pool_that_nobody_wants_any_more_goes():
    cluster.api("DELETE", "/v1/functions/pooled")
    wait_until("no container left", lambda: not node().engine.containers(), 40)


main(up, lambda: cluster and cluster.down(), lambda: cluster and cluster.show_logs())
