"""Whether messages and modals are valid by the official models."""

import json
import sys

from slack_sdk.models.blocks import Block
from slack_sdk.models.views import View

count = 0
for payload in json.load(open(sys.argv[1], encoding="utf-8")):
    blocks = payload["blocks"]
    for block in blocks:
        parsed = Block.parse(block)
        assert parsed is not None, f"unknown block: {block}"
        # Raises where a limit is broken.
        again = parsed.to_dict()
        assert again["type"] == block["type"], block
        count += 1
    if payload["type"] == "modal":
        View(**payload).to_dict()
    else:
        assert len(blocks) <= 50 and len(json.dumps(blocks, ensure_ascii=False).encode()) <= 13000
print(count, "blocks: all are valid")
