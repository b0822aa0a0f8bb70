#!/usr/bin/env python3
"""Check an OpenAPI 3 document for what a reader or a generator would trip over: references that lead nowhere,
operations without an id, a summary, or answers, path parameters that are not declared, ids used twice."""
import re
import sys

import yaml

METHODS = {"get", "put", "post", "delete", "patch", "head", "options"}
found = []


def complain(where, what):
    found.append(f"{where}: {what}")


def resolve(doc, ref):
    node = doc
    for part in ref.removeprefix("#/").split("/"):
        part = part.replace("~1", "/").replace("~0", "~")
        if not isinstance(node, dict) or part not in node:
            return None
        node = node[part]
    return node


def walk_refs(doc, node, where):
    if isinstance(node, dict):
        ref = node.get("$ref")
        if isinstance(ref, str) and (not ref.startswith("#/") or resolve(doc, ref) is None):
            complain(where, f"reference {ref} leads nowhere")
        for key, value in node.items():
            walk_refs(doc, value, f"{where}/{key}")
    elif isinstance(node, list):
        for i, value in enumerate(node):
            walk_refs(doc, value, f"{where}/{i}")


def parameters(doc, *lists):
    for entry in (p for items in lists for p in items or []):
        yield resolve(doc, entry["$ref"]) if "$ref" in entry else entry


def check_operation(doc, path, method, op, shared, ids):
    where = f"{method.upper()} {path}"
    if "operationId" not in op:
        complain(where, "no operationId")
    elif op["operationId"] in ids:
        complain(where, f"operationId {op['operationId']} is used twice")
    ids.add(op.get("operationId"))
    if not op.get("summary"):
        complain(where, "no summary")
    if not op.get("responses"):
        complain(where, "no responses")
    for status, answer in (op.get("responses") or {}).items():
        answer = resolve(doc, answer["$ref"]) if "$ref" in answer else answer
        if not re.fullmatch(r"[1-5](\d\d|XX)|default", str(status)):
            complain(where, f"{status} is no status")
        if answer is not None and not answer.get("description"):
            complain(where, f"answer {status} has no description")
    declared = {p["name"] for p in parameters(doc, shared, op.get("parameters")) if p and p.get("in") == "path"}
    wanted = set(re.findall(r"{([^}]+)}", path))
    if declared != wanted:
        complain(where, f"path parameters {sorted(wanted)} but declared {sorted(declared)}")


def main():
    with open(sys.argv[1], encoding="utf-8") as f:
        doc = yaml.safe_load(f)
    if not str(doc.get("openapi", "")).startswith("3."):
        complain("openapi", "not version 3")
    for key in ("title", "version"):
        if not doc.get("info", {}).get(key):
            complain("info", f"no {key}")
    walk_refs(doc, doc, "#")
    ids = set()
    for path, item in doc.get("paths", {}).items():
        for method, op in item.items():
            if method in METHODS:
                check_operation(doc, path, method, op, item.get("parameters"), ids)
    print("\n".join(found) or f"{len(ids)} operations, nothing to complain about")
    return 1 if found else 0


sys.exit(main())
