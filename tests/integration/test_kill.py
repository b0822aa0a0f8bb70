"""kill -9 of each program under a trickle of requests: service returns by itself, nothing is left over or doubled.
What a supervisor does (start the program again) the test does."""
import time

from cluster import HELLO, Cluster, Trickle, metric_sum
from scenario import equal, main, scenario, wait_until

cluster = None


def up():
    global cluster
    cluster = Cluster(nodes=2)
    cluster.up()
    cluster.deploy("steady", scale={"min": 2, "max": 4})
    wait_until("2 replicas ready", two_ready, 30)


def two_ready():
    status = cluster.describe("steady")["status"]
    return status["ready"] == 2 and status["wanted"] == 2


def ids():
    return sorted(c["Id"] for _, c in cluster.containers(running_only=True))


def no_orphan_and_no_duplicate():
    """Every container is a replica that describe knows, every replica id has one container, there are as many as wanted."""
    replicas = {r["container"] for r in cluster.describe("steady")["replicas"] if r["state"] != "failed"}
    # closed sandboxes are nobody's; one that was opened is known by its container alone
    containers = [(n, c) for n, c in cluster.containers() if "dev.davit.primed" not in c["Labels"] or c["Id"] in replicas]
    labels = [c["Labels"].get("dev.davit.replica", c["Id"]) for _, c in containers]
    equal(sorted(c["Id"] for _, c in containers), sorted(replicas), "containers, and what describe knows")
    equal(len(labels), len(set(labels)), "containers per replica id")
    equal([c["State"] for _, c in containers], ["running"] * 2, "containers")
    return two_ready()


def ready_networks_add_up(at_least=1):
    """Every holder runs and is counted by its agent; every replica that joined one has it to itself."""
    for node in cluster.nodes:
        holders, metrics = node.engine.holders(), node.metrics()
        equal([h["State"] for h in holders], ["running"] * len(holders), f"holders of {node.name}")
        counts = {s: metric_sum(metrics, "davit_agent_networks", state=s) for s in ("making", "found", "ready", "in_use", "closing", "removing")}
        modes = [c["HostConfig"]["NetworkMode"] for c in node.engine.containers()]
        joined = [m.removeprefix("container:") for m in modes if m.startswith("container:")]
        equal(len(holders), counts["ready"] + counts["in_use"], f"holders of {node.name}; counted {counts}")
        equal(len(joined), counts["in_use"], f"replicas of {node.name} in networks that are lent")
        equal(len(set(joined) & {h["Id"] for h in holders}), len(joined), f"networks of replicas of {node.name}, each its own")
        assert counts["ready"] >= at_least, f"{node.name}: {counts}"
    return True


def returns(trickle, since, seconds):
    wait_until("requests are answered again", lambda: trickle.good_since(since, 10), seconds)
    wait_until("no orphan, no duplicate", no_orphan_and_no_duplicate, 30, every=0.3)
    wait_until("ready networks add up", ready_networks_add_up, 30, every=0.3)


@scenario
def a_killed_orchestrator_serves_again_with_the_same_replicas():
    before = ids()
    with Trickle(cluster, "steady") as trickle:
        wait_until("a good start", lambda: trickle.good_since(0), 10)
        cluster.orchestrator.kill()
        killed = time.monotonic()
        time.sleep(0.5)  # down for as long as a supervisor waits
        cluster.start_orchestrator()
        returns(trickle, killed, 10)
    equal(ids(), before, "containers: those from before the kill")
    allowed = {200, "ConnectionRefusedError", "ConnectionResetError", "RemoteDisconnected", "BadStatusLine", 503}
    wrong = [s for _, s in trickle.outcomes if s not in allowed]
    equal(wrong, [], "outcomes besides answers, refusals and broken connections")


@scenario
def replicas_keep_running_while_no_orchestrator_does():
    before = ids()
    cluster.orchestrator.kill()
    time.sleep(4)  # longer than an agent waits before it joins again
    equal(ids(), before, "containers without an orchestrator")
    cluster.start_orchestrator()
    wait_until("ready with the same replicas", lambda: no_orphan_and_no_duplicate() and ids() == before, 15)


@scenario
def a_killed_agent_adopts_its_replicas_again():
    node = cluster.nodes[0]
    before = ids()
    with Trickle(cluster, "steady") as trickle:
        wait_until("a good start", lambda: trickle.good_since(0), 10)
        node.agent.kill()
        killed = time.monotonic()
        time.sleep(0.3)
        node.start_agent()
        returns(trickle, killed, 15)
    equal(ids(), before, "containers: adopted, not made anew")
    bad = [s for _, s in trickle.outcomes if s != 200]
    assert len(bad) <= 3, f"more than the requests inside broke: {bad}"


@scenario
def an_agent_that_stays_away_has_its_replicas_replaced_and_clears_up_when_it_returns():
    node, other = cluster.nodes
    with Trickle(cluster, "steady") as trickle:
        node.agent.kill()
        killed = time.monotonic()
        wait_until("2 replicas on the other node",
                   lambda: len(other.engine.containers("dev.davit.node", True)) == 2 and two_ready(), 40)
        assert trickle.good_since(killed) or wait_until("answers", lambda: trickle.good_since(killed), 10)
        node.start_agent()
        wait_until("both nodes ready", lambda: cluster.ready_nodes() == 2, 20)
        returns(trickle, killed, 20)


@scenario
def a_killed_engine_is_reported_and_its_replicas_come_back():
    node = cluster.nodes[1]
    with Trickle(cluster, "steady") as trickle:
        wait_until("a good start", lambda: trickle.good_since(0), 10)
        node.engine.process.kill()
        killed = time.monotonic()
        wait_until("the node is not ready", lambda: cluster.ready_nodes() == 1, 15)
        state = next(n for n in cluster.api("GET", "/v1/nodes").json["nodes"] if n["name"] == node.name)
        equal(state["engine_ok"], False)
        assert state["engine_message"], "no reason given"
        node.engine.start()
        node.engine.wait()
        wait_until("both nodes ready", lambda: cluster.ready_nodes() == 2, 20)
        returns(trickle, killed, 30)


@scenario
def a_function_asleep_wakes_after_every_program_was_killed_at_once():
    cluster.deploy("nap", scale={"idle": "1s"})
    for process in [cluster.orchestrator] + [n.agent for n in cluster.nodes]:
        process.kill()
    cluster.start_orchestrator()
    for node in cluster.nodes:
        node.start_agent()
    equal(cluster.invoke("nap", body=b"you").text, "Hello, you!\n")
    wait_until("asleep again", lambda: not cluster.containers("nap"), 20)
    cluster.wait_ready()
    wait_until("no orphan, no duplicate", no_orphan_and_no_duplicate, 30, every=0.3)
    wait_until("ready networks add up", ready_networks_add_up, 30, every=0.3)


@scenario
def agents_killed_in_the_middle_of_starts_leave_nothing_behind():
    def scale(**how):
        equal(cluster.api("PUT", "/v1/functions/many", {"name": "many", "image": HELLO, "scale": {"max": 6, **how}}).status, 200)

    cluster.deploy("many", scale={"max": 6})
    for pause in (0.05, 0.2, 0.5):
        scale(min=6)
        time.sleep(pause)
        for node in cluster.nodes:
            node.agent.kill()
        for node in cluster.nodes:
            node.start_agent()
        cluster.wait_ready()
        scale(idle="200ms")
        wait_until("none of many", lambda: not cluster.containers("many"), 40)
    cluster.remove("many")
    wait_until("no orphan, no duplicate", no_orphan_and_no_duplicate, 30, every=0.3)
    wait_until("ready networks add up", ready_networks_add_up, 30, every=0.3)


@scenario
def a_holder_that_somebody_removes_is_replaced_and_so_is_the_replica_inside():
    with Trickle(cluster, "steady") as trickle:
        wait_until("a good start", lambda: trickle.good_since(0), 10)
        node, victim = next((n, c) for n, c in cluster.containers("steady") if c["HostConfig"]["NetworkMode"].startswith("container:"))
        node.engine.call("DELETE", "/containers/" + victim["HostConfig"]["NetworkMode"].removeprefix("container:") + "?force=true")
        killed = time.monotonic()
        wait_until("the replica is replaced", lambda: victim["Id"] not in ids(), 20)
        returns(trickle, killed, 20)


@scenario
def a_stopped_cluster_leaves_no_container_behind_once_its_functions_are_gone():
    cluster.remove("steady")
    cluster.remove("nap")
    for node in cluster.nodes:
        node.agent.stop()
    equal(cluster.containers(), [])


@scenario
def a_node_that_keeps_no_networks_ready_any_more_removes_them():
    for node in cluster.nodes:
        node.start_agent("--ready-networks", "0")
    wait_until("no holder left", lambda: not any(n.engine.holders() for n in cluster.nodes), 30)


main(up, lambda: cluster and cluster.down(), lambda: cluster and cluster.show_logs())
