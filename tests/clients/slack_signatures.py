"""What the official verifier says of signatures."""

import json
import sys

from slack_sdk.signature import Clock, SignatureVerifier


class At(Clock):
    def __init__(self, now):
        self.at = now

    def now(self):
        return self.at


given = json.loads(sys.argv[1])
answers = []
for case in given["cases"]:
    verifier = SignatureVerifier(given["secret"], clock=At(case["clock"]))
    try:
        answers.append(bool(verifier.is_valid(body=case["body"], timestamp=case["at"], signature=case["signature"])))
    except ValueError:
        answers.append(False)
print(json.dumps(answers))
