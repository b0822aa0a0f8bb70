"""What test_freeze.py and the contract tests of control groups find on this machine's own hierarchy, once more under
cgroup v2: in a mount namespace of our own, where /sys/fs/cgroup is a cgroup2 mount, with engines and agents inside it.

Works beside a host that uses v1 (its controllers stay where they are: limits and memory figures are not to be had in
this place, freezing and processor time are).  On a host that uses v2 anyway this is the same place as the host's.
Nothing outside the namespace changes; groups that our engines made are removed with them."""
import os
import re
import shutil
import subprocess
import sys

from scenario import Skip, equal, main, scenario

INSIDE = "DAVIT_TEST_CGROUP2"
HERE = os.path.dirname(os.path.abspath(__file__))
BUILD = os.path.dirname(os.environ.get("DAVIT_BIN", os.path.join(HERE, "../../build/dev/bin")))
SOCKET = "/var/run/docker.sock"
# Version 2 in here has no memory controller where the host's version 1 holds it.
MAY_SKIP = {"a_memory_limit_set_is_the_limit_read_back", "a_process_without_memory_is_told_so"}
why_not = None
had_group = False  # of engines, before ours began


def enter():
    """Run this script again in a mount namespace of its own."""
    if os.geteuid() != 0 or not shutil.which("unshare"):
        return "needs root and unshare"
    if subprocess.run(["unshare", "--mount", "--propagation", "private", "true"], stderr=subprocess.DEVNULL).returncode:
        return "this machine gives nobody a mount namespace"
    os.execvp("unshare", ["unshare", "--mount", "--propagation", "private", "env", f"{INSIDE}=1", sys.executable, *sys.argv])


def mount_v2():
    with open("/proc/filesystems") as f:
        if "cgroup2" not in f.read():
            return "this kernel has no cgroup v2"
    while subprocess.run(["umount", "-R", "/sys/fs/cgroup"], stderr=subprocess.DEVNULL).returncode == 0:
        pass
    if subprocess.run(["mount", "-t", "cgroup2", "cgroup2", "/sys/fs/cgroup"]).returncode:
        return "this machine does not let us mount cgroup v2"
    return None if os.path.exists("/sys/fs/cgroup/cgroup.procs") else "the cgroup v2 mount is not one"


def up():
    global had_group
    if why_not:
        raise Skip(why_not)
    had_group = os.path.exists("/sys/fs/cgroup/docker")
    freeze.up()
    if os.path.exists(SOCKET):  # whoever looks for an engine at its usual place finds ours, in here
        equal(subprocess.run(["mount", "--bind", freeze.node().engine.socket, os.path.realpath(SOCKET)]).returncode, 0)


def down():
    if freeze.cluster:
        freeze.cluster.down()
        if not had_group and os.path.exists("/sys/fs/cgroup/docker"):
            subprocess.run(["rmdir", "/sys/fs/cgroup/docker"], stderr=subprocess.DEVNULL)  # kept while others use it


def contract(program):
    """A C program of the contract tests: all passed but for what this place cannot have."""
    path = f"{BUILD}/tests/{program}"
    if not os.access(path, os.X_OK):
        raise Skip(f"{path} was not built")
    enter_net = ["nsenter", f"--net=/run/netns/{freeze.node().namespace}"]
    r = subprocess.run([*enter_net, path], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=120)
    if r.returncode:
        raise AssertionError(f"{program}: exit {r.returncode}\n{r.stdout[-3000:]}")
    passed, skipped = (set(re.findall(rf"^\[ *{word} \] (\w+)$", r.stdout, re.M)) for word in ("OK", "SKIPPED"))
    assert skipped <= MAY_SKIP, f"skipped: {sorted(skipped)}\n{r.stdout[-3000:]}"
    if skipped:
        print(f"without a memory controller: {', '.join(sorted(skipped))}")
    return passed


@scenario
def the_engine_in_here_uses_version_2():
    info = freeze.node().engine.call("GET", "/info").json
    equal(info["CgroupVersion"], "2")


@scenario
def control_groups_are_read_frozen_and_thawed():
    assert "a_frozen_process_uses_no_cpu_until_it_is_thawed" in contract("contract_test_cgroup")


@scenario
def replicas_run_and_are_taken_over():
    if not os.path.exists(SOCKET):
        raise Skip("no engine's socket on this machine to stand in for")
    assert "the_next_agent_takes_the_replica_over" in contract("contract_test_sandbox_docker")


if not os.environ.get(INSIDE):
    why_not = enter()
else:
    why_not = mount_v2()
import test_freeze as freeze  # noqa: E402  its scenarios follow ours

if __name__ == "__main__":
    main(up, down, lambda: freeze.cluster and freeze.cluster.show_logs())
