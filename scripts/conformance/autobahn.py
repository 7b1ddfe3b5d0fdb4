"""Sums up a report of Autobahn's fuzzing client: autobahn.py index.json explained.txt

Prints one line. Exit code 1: a case failed, or was passed only non-strictly without a line about it
in explained.txt (CASE, then why it is so).
"""

import io
import json
import sys

# RFC 6455 leaves these to the server; nothing is right or wrong in them.
NEUTRAL = ("OK", "INFORMATIONAL")


def main(report, explanations):
    with io.open(explanations, encoding="utf-8") as lines:
        explained = {line.split()[0] for line in lines if line.strip() and not line.startswith("#")}
    try:
        with io.open(report, encoding="utf-8") as text:
            (cases,) = json.load(text).values()
    except (IOError, ValueError) as error:
        return 1, "there is no report to read: %s" % error
    bad, lax, informational = [], [], 0
    for name, case in sorted(cases.items()):
        results = (case["behavior"], case["behaviorClose"])
        informational += results[0] == "INFORMATIONAL"
        if "NON-STRICT" in results and all(r in NEUTRAL + ("NON-STRICT",) for r in results):
            (lax if name in explained else bad).append(name)
        elif not all(result in NEUTRAL for result in results):
            bad.append("%s (%s, %s)" % ((name,) + results))
    if bad or len(cases) < 300:
        return 1, "%d cases; failed or unexplained: %s" % (len(cases), ", ".join(bad) or "too few ran")
    note = "; non-strict, explained: %s" % ", ".join(lax) if lax else ""
    return 0, "%d cases, %d of them informational%s" % (len(cases), informational, note)


if __name__ == "__main__":
    status, line = main(sys.argv[1], sys.argv[2])
    print(line)
    sys.exit(status)
