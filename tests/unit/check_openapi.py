#!/usr/bin/env python3
"""Hold proto/openapi.yaml to the program's route table: the same routes, statuses and query parameters in both.
The table comes on standard input, a line a route, as dv_api_routes and `davit-orchestrator --print-routes` write it.
What the gateway serves itself (x-davit-served-by) is described, but is no route of the API."""
import sys

try:
    import yaml
except ImportError:
    sys.exit(77)


def parameter(doc, entry):
    return doc["components"]["parameters"][entry["$ref"].rsplit("/", 1)[1]] if "$ref" in entry else entry


def described(doc):
    for path, item in doc["paths"].items():
        for method, op in item.items():
            if "x-davit-served-by" in op:
                continue
            query = {p["name"] for p in (parameter(doc, e) for e in op.get("parameters", [])) if p["in"] == "query"}
            yield (method.upper(), path), (set(op["responses"]), query)


def routed(lines):
    for line in lines:
        method, path, statuses, parameters = line.split()
        yield (method, path), (set(statuses.split(",")), set() if parameters == "-" else set(parameters.split(",")))


def main():
    with open(sys.argv[1], encoding="utf-8") as f:
        doc = yaml.safe_load(f)
    spec, table, trouble = dict(described(doc)), dict(routed(sys.stdin)), 0
    for route in sorted(spec.keys() | table.keys()):
        if spec.get(route) == table.get(route):
            continue
        trouble += 1
        print(" ".join(route), "- described:", spec.get(route), "- served:", table.get(route), file=sys.stderr)
    if not table:
        print("no routes given", file=sys.stderr)
    return 1 if trouble or not table else 0


sys.exit(main())
