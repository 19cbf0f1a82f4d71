"""The official Python client: a held call that outlives one request, by the client's own rounds."""

import asyncio
import json
import os
import time

from mcp import Client


async def main():
    async with Client(os.environ["URL"]) as client:
        tools = await client.list_tools()
        assert any(tool.name == "refund_payment" for tool in tools.tools)
        started = time.monotonic()
        result = await client.call_tool("refund_payment", json.loads(os.environ["ARGUMENTS"]))
        took = int((time.monotonic() - started) * 1000)
        print(json.dumps({"took": took, "error": bool(result.is_error), "text": result.content[0].text}))


asyncio.run(main())
