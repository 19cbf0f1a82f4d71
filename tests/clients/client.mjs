// The story of a held call, played by the TypeScript SDK. Usage: client.mjs stdio|http
import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { setTimeout as sleep } from "node:timers/promises";
import { Client } from "@modelcontextprotocol/sdk/client/index.js";
import { StdioClientTransport } from "@modelcontextprotocol/sdk/client/stdio.js";
import { StreamableHTTPClientTransport } from "@modelcontextprotocol/sdk/client/streamableHttp.js";

const { COUNTERSIGN, CONFIG, INBOX, LEDGER, URL: url } = process.env;
const run = (...args) => execFileSync(COUNTERSIGN, ["--config", CONFIG, ...args], { encoding: "utf8", stdio: ["ignore", "pipe", "ignore"] });

// An approver with a browser: signs in with a one-time link, reads the page, presses its button.
let cookie = "";
const browse = async (path, form) => {
  const response = await fetch(INBOX + path, {
    method: form ? "POST" : "GET", redirect: "manual", headers: { cookie }, body: form && new URLSearchParams(form),
  });
  const set = response.headers.get("set-cookie");
  if (set) cookie = set.split(";")[0];
  return response.text();
};
const decide = async (verdict) => {
  let waiting = [];
  for (let n = 0; n < 400 && waiting.length === 0; n += 1) {
    waiting = run("approvals", "list", "--json").split("\n").filter(Boolean).map((line) => JSON.parse(line)).filter((w) => w.state === "pending");
    await sleep(50);
  }
  // What this client is told must be read before its own thread is kept busy.
  await sleep(200);
  const path = `/inbox/${waiting[0].id}`;
  const page = await browse(path);
  const field = (name) => [...page.matchAll(new RegExp(`name="${name}" value="([^"]+)"`, "g"))].at(-1)[1];
  await browse(path, { csrf: field("csrf"), digest: field("digest"), verdict, reason: "a test" });
};
await browse("/inbox/login", { token: run("approvals", "login", "anna").split("token=")[1].trim() });

const names = ["LEDGER_DB", "LEDGER_ISSUER", "LEDGER_AUDIENCE", "LEDGER_INTROSPECTION"];
const env = names.flatMap((name) => ["--env", `${name}=${process.env[name]}`]);
const transport = process.argv[2] === "http"
  ? new StreamableHTTPClientTransport(new URL(url))
  : new StdioClientTransport({ command: COUNTERSIGN, args: ["--config", CONFIG, "wrap", "--server", "ledger", ...env, "--", LEDGER], stderr: "ignore" });
const client = new Client({ name: "test", version: "1" });
await client.connect(transport);

const refund = (amount, iban) => ({ name: "refund_payment", arguments: { payment_id: "pay-1", amount, currency: "EUR", iban } });
const text = (result) => result.content[0].text;

assert.equal((await client.listTools()).tools.length, 8);

const allowed = await client.callTool({ name: "list_accounts", arguments: {} });
assert.ok(!allowed.isError && text(allowed).includes("acc-1"));

const told = [];
let held = client.callTool(refund(80, "DE01"), undefined, { onprogress: (p) => told.push(p.message) });
await decide("approve");
let result = await held;
assert.ok(!result.isError && text(result).includes("80.00 EUR"), JSON.stringify(result));
assert.ok(told[0].includes("anna") && told[0].includes("/inbox/"), told[0]);

held = client.callTool({ name: "close_account", arguments: { account: "acc-3" } });
await decide("deny");
result = await held;
assert.ok(result.isError && text(result).includes("NOT executed: anna denied it"), JSON.stringify(result));

// It times out while nobody decides, is approved meanwhile, and the same call again gets its result, once.
await assert.rejects(client.callTool(refund(70, "DE02"), undefined, { timeout: 2000 }), /timed out/i);
await decide("approve");
result = await client.callTool(refund(70, "DE02"));
assert.ok(!result.isError && text(result).includes("70.00 EUR"), JSON.stringify(result));

await client.close();
console.log("every step came out as told");
process.exit(0);
