#!/usr/bin/env python3
"""Turn the output of `ctest -V` into one line per test case.

    tally.py SUITE < ctest.log >> results.tsv      ("pass|fail|skip", suite, test, reason; tab-separated)

A test case is a cmocka case ("[ RUN ] ... [ OK ]"); scripted tests print the same lines.  A program that died
inside a case fails that case; one that failed without naming a case fails as a whole; one that ctest did not
run at all fails too.
"""
import re
import sys

OUTPUT = re.compile(r"^(\d+): (.*)$")
FRAME = re.compile(r"^\[([A-Z =]{10})\] (.*)$")
END = re.compile(r"^\s*\d+/\d+ Test\s+#(\d+): (\S+) \.*\s*(.*?)\s+[\d.]+ sec\s*$")


class Program:
    def __init__(self):
        self.case = None
        self.words = ""
        self.cases = []

    def line(self, text):
        frame = FRAME.match(text)
        kind, name = (frame.group(1).strip(), frame.group(2)) if frame else ("", "")
        if kind == "RUN":
            self.case, self.words = name, ""
        elif kind in ("OK", "FAILED", "SKIPPED") and name == self.case:
            result = {"OK": "pass", "FAILED": "fail", "SKIPPED": "skip"}[kind]
            self.cases.append((result, name, self.words))
            self.case = None
        elif (kind in ("ERROR", "LINE") or not frame) and not text.startswith("| "):  # "| " is background
            self.words = (self.words + " " + re.sub(r"^-*\s*", "", name if frame else text)).strip()[-300:]


def main():
    suite = sys.argv[1]
    programs, done = {}, []
    for raw in sys.stdin:
        raw = raw.rstrip("\n")
        out, end = OUTPUT.match(raw), END.match(raw)
        if out:
            programs.setdefault(out.group(1), Program()).line(out.group(2))
        elif end:
            done.append(end.groups())
    for number, name, verdict in done:
        program = programs.get(number, Program())
        passed = verdict == "Passed"
        if program.case is not None:
            program.cases.append(("fail", program.case, "the program ended inside it: " + verdict.strip("* ")))
        elif not passed and not any(c[0] == "fail" for c in program.cases):
            if "Skipped" in verdict:
                program.cases.append(("skip", "(whole program)", program.words))
            else:
                program.cases.append(("fail", "(whole program)", verdict.strip("* ") + " " + program.words))
        if passed and not program.cases:
            program.cases.append(("pass", "(whole program)", ""))
        for result, case, words in program.cases:
            reason = "" if result == "pass" else words.replace("\t", " ") or "no reason given"
            print(f"{result}\t{suite}\t{name}: {case}\t{reason}")


main()
