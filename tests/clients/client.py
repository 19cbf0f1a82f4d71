"""The story of a held call, played by the Python `mcp` client. Usage: client.py stdio|http"""

import asyncio
import http.cookiejar
import json
import os
import re
import subprocess
import sys
import urllib.parse
import urllib.request

from mcp import Client, StdioServerParameters

COUNTERSIGN, CONFIG = os.environ["COUNTERSIGN"], os.environ["CONFIG"]


def run(*arguments):
    done = subprocess.run([COUNTERSIGN, "--config", CONFIG, *arguments], capture_output=True, text=True, check=True)
    return done.stdout


class Anna:
    """An approver with a browser: signs in with a one-time link, reads the page, presses its button."""

    def __init__(self):
        jar = urllib.request.HTTPCookieProcessor(http.cookiejar.CookieJar())
        self.browser = urllib.request.build_opener(jar, urllib.request.ProxyHandler({}))
        token = run("approvals", "login", "anna").split("token=")[1].strip()
        self.post("/inbox/login", token=token)

    def post(self, path, **form):
        data = urllib.parse.urlencode(form).encode()
        return self.browser.open(os.environ["INBOX"] + path, data).read().decode()

    async def decide(self, verdict):
        for _ in range(400):
            waiting = [json.loads(line) for line in run("approvals", "list", "--json").splitlines()]
            waiting = [w for w in waiting if w["state"] == "pending"]
            if waiting:
                break
            await asyncio.sleep(0.05)
        path = "/inbox/" + waiting[0]["id"]
        page = self.browser.open(os.environ["INBOX"] + path).read().decode()
        field = lambda name: re.findall(f'name="{name}" value="([^"]+)"', page)[-1]
        self.post(path, csrf=field("csrf"), digest=field("digest"), verdict=verdict, reason="a test")


def refund(amount, iban):
    return {"payment_id": "pay-1", "amount": amount, "currency": "EUR", "iban": iban}


def server():
    if sys.argv[1] == "http":
        return os.environ["URL"]
    names = ["LEDGER_DB", "LEDGER_ISSUER", "LEDGER_AUDIENCE", "LEDGER_INTROSPECTION"]
    env = [part for name in names for part in ("--env", f"{name}={os.environ[name]}")]
    arguments = ["--config", CONFIG, "wrap", "--server", "ledger", *env, "--", os.environ["LEDGER"]]
    return StdioServerParameters(command=COUNTERSIGN, args=arguments)


def text(result):
    return result.content[0].text


async def story():
    anna = await asyncio.to_thread(Anna)
    told = []

    async def progress(_now, _total, message):
        told.append(message)

    async with Client(server()) as client:
        tools = await client.list_tools()
        assert len(tools.tools) == 8, tools

        allowed = await client.call_tool("list_accounts", {})
        assert not allowed.is_error and "acc-1" in text(allowed), allowed

        held = asyncio.create_task(client.call_tool("refund_payment", refund(80, "DE01"), progress_callback=progress))
        await anna.decide("approve")
        result = await held
        assert not result.is_error and "80.00 EUR" in text(result), result
        assert told and "anna" in told[0] and "/inbox/" in told[0], told

        held = asyncio.create_task(client.call_tool("close_account", {"account": "acc-3"}))
        await anna.decide("deny")
        result = await held
        assert result.is_error and "NOT executed: anna denied it" in text(result), result

        # It times out while nobody decides, is approved meanwhile, and the same call again gets its result, once.
        try:
            late = await client.call_tool("refund_payment", refund(70, "DE02"), read_timeout_seconds=2)
            raise AssertionError(f"it did not time out: {late}")
        except AssertionError:
            raise
        except Exception as error:
            assert "time" in str(error).lower(), error
        await anna.decide("approve")
        result = await client.call_tool("refund_payment", refund(70, "DE02"))
        assert not result.is_error and "70.00 EUR" in text(result), result
    print("every step came out as told")


asyncio.run(story())
