"""Programs that are stopped in order (SIGTERM) under load: what is inside is answered, what comes meanwhile goes elsewhere
or waits, nothing is lost.  The function is davit-probe, which takes as long as it is told."""
import os
import threading
import time

from cluster import BIN, Cluster, Trickle, run
from scenario import equal, main, scenario, wait_until

PROBE = "davit/probe:test"
cluster = None


def up():
    global cluster
    cluster = Cluster(nodes=2)
    run("tar", "-C", BIN, "-cf", f"{cluster.directory}/probe.tar", "davit-probe")
    cluster.up()
    for node in cluster.nodes:
        node.engine.import_image(f"{cluster.directory}/probe.tar", PROBE, ["/davit-probe"])
    cluster.deploy("pair", image=PROBE, timeout="60s", scale={"min": 2, "max": 2, "concurrency": 20})
    wait_until("a replica on each node", one_each, 30)


def one_each():
    replicas = [r for r in cluster.describe("pair")["replicas"] if r["state"] in ("warm", "executing")]
    return len(replicas) == 2 and len({r["node"] for r in replicas}) == 2


def in_background(path, count=1, function="pair", **request):
    """Requests under way; join() gives their answers."""
    answers = []
    threads = [threading.Thread(target=lambda: answers.append(cluster.invoke(function, path, **request)), daemon=True)
               for _ in range(count)]
    for t in threads:
        t.start()

    def join(seconds=40):
        for t in threads:
            t.join(seconds)
        return answers
    return join


def log_of(node):
    with open(node.agent.log, errors="replace") as f:
        return f.read()


def inside(node):
    metrics = node.metrics()
    return metrics[("davit_agent_requests_in_flight", ())]


def busy_node(n):
    """The node whose replica has n requests inside: the one used last is asked first."""
    return wait_until(f"{n} inside one node", lambda: next((m for m in cluster.nodes if inside(m) == n), None), 10)


def both_ready_again():
    cluster.wait_ready()
    wait_until("2 replicas ready", lambda: cluster.describe("pair")["status"]["ready"] == 2, 30)


@scenario
def a_stopped_agent_lets_long_requests_end_while_new_ones_go_elsewhere():
    slow = in_background("/sleep?ms=3000", 8, method="GET")
    node = busy_node(8)
    with Trickle(cluster, "pair/sum", every=0.02) as trickle:
        began = time.monotonic()
        node.agent.popen.terminate()
        node.agent.popen.wait(20)
        took = time.monotonic() - began
        answers = slow()
        equal([a.status for a in answers], [200] * 8, "answers to what was inside")
        assert 2 < took < 10, f"the agent ended after {took:.1f} s"
        assert trickle.good_since(began, 10), trickle.outcomes[-10:]
        node.start_agent()
        both_ready_again()
        wait_until("more answers", lambda: trickle.good_since(time.monotonic() - 0.5, 10), 10)
    equal([s for _, s in trickle.outcomes if s != 200], [], "outcomes besides 200")
    log = log_of(node)
    for words in ("draining; replicas keep running", "waits for requests inside", "ended; replicas keep running"):
        assert words in log, f'no "{words}" in the agent\'s log'


@scenario
def large_bodies_pass_while_agents_restart():
    body = os.urandom(200_000)
    wrong, ending = [], threading.Event()

    def send():
        while not ending.is_set():
            a = cluster.invoke("pair", "/echo", body)
            if a.status != 200 or a.body != body:
                wrong.append((a.status, len(a.body), a.text[:200] if a.status != 200 else ""))
    threads = [threading.Thread(target=send, daemon=True) for _ in range(6)]
    for t in threads:
        t.start()
    for node in cluster.nodes * 2:
        time.sleep(0.3)
        node.agent.stop()
        node.start_agent()
        both_ready_again()
    ending.set()
    for t in threads:
        t.join(40)
    equal(wrong, [], "wrong answers")


@scenario
def a_second_signal_ends_an_agent_at_once_and_what_was_inside_is_told_so():
    slow = in_background("/sleep?ms=20000", 6, method="GET", timeout=30)
    node = busy_node(6)
    node.agent.popen.terminate()
    time.sleep(0.3)
    node.agent.popen.terminate()
    node.agent.popen.wait(5)
    node.start_agent()
    both_ready_again()
    told = slow()
    equal([a.status for a in told], [502] * 6)
    equal({a.json["code"] for a in told}, {"node_stopped"})


@scenario
def a_stopped_orchestrator_lets_requests_inside_end():
    slow = in_background("/sleep?ms=2000", 4, method="GET")
    wait_until("all of them inside", lambda: sum(map(inside, cluster.nodes)) == 4, 10)
    began = time.monotonic()
    cluster.orchestrator.popen.terminate()
    cluster.orchestrator.popen.wait(20)
    equal([a.status for a in slow()], [200] * 4)
    assert time.monotonic() - began < 10
    cluster.start_orchestrator()
    both_ready_again()


main(up, lambda: cluster and cluster.down(), lambda: cluster and cluster.show_logs())
