"""The command line, as a person uses it."""
import json
import os
import signal
import subprocess

from cluster import BIN, HELLO, TOOLS, Cluster
from scenario import equal, main, scenario, wait_until

cluster = None


def up():
    global cluster
    cluster = Cluster(nodes=1)
    cluster.up()


def davit(*words, stdin=None, code=0):
    r = cluster.cli(*words, stdin=stdin, check=False)
    if r.returncode != code:
        raise AssertionError(f"davit {' '.join(words)}: exit {r.returncode}, wanted {code}: {r.stdout}{r.stderr}")
    return r


@scenario
def a_function_is_deployed_called_shown_scaled_and_removed():
    r = davit("deploy", "hello", "--image", HELLO, "--idle", "30s", "--label", "team=a", "--env", "A=1", "--wait")
    assert "deployed" in r.stderr and "ready after" in r.stderr, r.stderr
    equal(davit("invoke", "hello", "-d", "you").stdout, "Hello, you!\n")
    equal(davit("invoke", "hello", stdin="from stdin").stdout, "Hello, from stdin!\n")
    row = next(line for line in davit("list").stdout.splitlines() if line.startswith("hello"))
    equal(row.split()[:2], ["hello", "ready"])
    listed = json.loads(davit("list", "-o", "json").stdout)
    equal(listed["functions"][0]["spec"]["labels"], {"team": "a"})
    text = davit("describe", "hello").stdout
    for word in ("ready", HELLO, "team=a", "A=1", "REPLICA", "WHEN"):
        assert word in text, f"{word} not in {text}"
    davit("scale", "hello", "2")
    wait_until("2 replicas", lambda: json.loads(davit("describe", "hello", "-o", "json").stdout)["status"]["ready"] == 2, 20)
    davit("scale", "hello", "auto")
    assert "listening on" in davit("logs", "hello").stdout
    davit("remove", "hello")
    wait_until("no container", lambda: not cluster.containers(), 20)


@scenario
def any_command_is_a_function():
    davit("deploy", "wc", "--image", TOOLS, "--stdio", "--", "/bin/wc", "-c")
    equal(davit("invoke", "wc", stdin="hello\n").stdout.strip(), "6")
    davit("remove", "wc")


@scenario
def logs_follow_until_interrupted():
    davit("deploy", "talk", "--image", HELLO, "--min", "1", "--wait")
    env = {**os.environ, "HOME": cluster.directory, "DAVIT_URL": cluster.url, "DAVIT_PASSWORD": cluster.secret("admin-password")}
    p = subprocess.Popen([f"{BIN}/davit", "logs", "-f", "talk"], stdout=subprocess.PIPE, env=env, text=True)
    try:
        assert "listening on" in p.stdout.readline()
        assert p.poll() is None, "it did not follow"
    finally:
        p.send_signal(signal.SIGINT)
        p.wait(10)
        p.stdout.close()
    davit("remove", "talk")


@scenario
def a_file_of_functions_is_applied_all_or_none():
    path = f"{cluster.directory}/davit.yaml"
    with open(path, "w") as f:
        f.write(f"functions:\n  - {{name: one, image: {HELLO}, env: {{N: 1}}}}\n"
                f"  - {{name: two, image: '{TOOLS}', protocol: stdio, command: [/bin/cat]}}\n")
    davit("apply", "-f", path, "--dry-run")
    equal(json.loads(davit("list", "-o", "json").stdout)["functions"], [])
    davit("apply", "-f", path)
    equal(davit("invoke", "two", "-d", "both").stdout, "both")
    with open(path, "w") as f:
        f.write(f"functions:\n  - {{name: three, image: {HELLO}}}\n  - {{name: four, image: {HELLO}, colour: red}}\n")
    r = davit("apply", "-f", path, code=1)
    assert "functions[1].colour" in r.stderr, r.stderr
    equal(len(json.loads(davit("list", "-o", "json").stdout)["functions"]), 2, "functions after a refused file")
    davit("remove", "one", "two")


@scenario
def a_stack_file_of_faas_cli_is_applied():
    path = f"{cluster.directory}/stack.yml"
    with open(path, "w") as f:
        f.write(f"version: 1.0\nprovider:\n  name: openfaas\n  gateway: {cluster.url}\nfunctions:\n  hello:\n    lang: c\n"
                f"    handler: ./hello\n    image: ${{IMAGE:-{HELLO}}}\n    labels:\n      com.openfaas.scale.max: 3\n"
                f"    environment:\n      write_debug: true\n")
    davit("apply", "-f", path)
    wait_until("its first replica", lambda: cluster.containers("hello"), 20)
    equal(davit("invoke", "hello", "-d", "stack").stdout, "Hello, stack!\n")
    davit("apply", "-f", path)
    davit("remove", "hello")
    wait_until("no container", lambda: not cluster.containers(), 20)


@scenario
def secrets_namespaces_and_nodes_are_kept():
    davit("secret", "create", "key", stdin="value")
    davit("secret", "create", "key", stdin="value", code=6)
    davit("secret", "update", "key", "--from-literal", "other")
    assert "key" in davit("secret", "list").stdout
    davit("secret", "remove", "key")
    davit("secret", "remove", "key", code=3)
    davit("namespace", "create", "staging")
    davit("deploy", "hello", "-n", "staging", "--image", HELLO)
    equal(davit("invoke", "hello.staging", "-d", "x").stdout, "Hello, x!\n")
    davit("namespace", "remove", "staging", code=6)
    davit("remove", "hello", "-n", "staging")
    wait_until("the namespace can go", lambda: cluster.cli("namespace", "remove", "staging", check=False).returncode == 0, 10)
    row = next(line for line in davit("nodes").stdout.splitlines() if line.startswith("n1"))
    equal(row.split()[1], "ready")
    davit("nodes", "cordon", "n1")
    assert "cordoned" in davit("nodes").stdout
    davit("nodes", "uncordon", "n1")
    wait_until("ready again", lambda: "ready" in davit("nodes").stdout, 10)


@scenario
def exit_codes_are_those_of_the_manual():
    davit("describe", "nobody", code=3)
    davit("invoke", "nobody", code=3)
    davit("deploy", "x", code=2)
    davit("deploy", "x", "--nonsense", code=2)
    davit("deploy", "Wrong_Name", "--image", HELLO, code=1)
    davit("list", "--gateway", "http://127.0.0.1:9", code=5)
    env = {**os.environ, "HOME": "/nonexistent", "DAVIT_URL": cluster.url, "DAVIT_PASSWORD": "wrong"}
    r = subprocess.run([f"{BIN}/davit", "list"], env=env, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    equal(r.returncode, 4)
    assert "password" in r.stderr, r.stderr


@scenario
def login_remembers_the_password():
    env = {**os.environ, "HOME": f"{cluster.directory}/home", "DAVIT_URL": cluster.url}
    for name in ("DAVIT_PASSWORD", "XDG_CONFIG_HOME"):
        env.pop(name, None)

    def run(*words, stdin=""):
        return subprocess.run([f"{BIN}/davit", *words], env=env, input=stdin, capture_output=True, text=True).returncode

    equal(run("login", stdin="wrong\n"), 4)
    equal(run("login", stdin=cluster.secret("admin-password") + "\n"), 0)
    equal(os.stat(f"{env['HOME']}/.config/davit/config.json").st_mode & 0o777, 0o600)
    equal(run("list"), 0)


@scenario
def completion_scripts_are_valid_for_bash():
    script = davit("completion", "bash").stdout
    r = subprocess.run(["bash", "-c", script + "\nCOMP_WORDS=(davit cluster u); COMP_CWORD=2; _davit; echo ${COMPREPLY[@]}"],
                       capture_output=True, text=True)
    equal((r.returncode, r.stdout.strip(), r.stderr), (0, "up", ""))


main(up, lambda: cluster and cluster.down(), lambda: cluster and cluster.show_logs())
