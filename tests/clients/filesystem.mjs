// The public filesystem server behind `countersign wrap`, with no configuration at all.
import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { createRequire } from "node:module";
import path from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { Client } from "@modelcontextprotocol/sdk/client/index.js";
import { StdioClientTransport } from "@modelcontextprotocol/sdk/client/stdio.js";

const { COUNTERSIGN, DATA, XDG_STATE_HOME, USER } = process.env;
const run = (...args) => execFileSync(COUNTERSIGN, args, { encoding: "utf8", stdio: ["ignore", "pipe", "ignore"], cwd: DATA });
const decide = async (verdict) => {
  for (let n = 0; n < 400; n += 1) {
    const waiting = run("approvals", "list", "--json").split("\n").filter(Boolean).map((line) => JSON.parse(line)).filter((w) => w.state === "pending");
    // What this client is told must be read before its own thread is kept busy.
    await sleep(200);
    if (waiting.length) return run("approvals", verdict, waiting[0].id, "--yes");
    await sleep(50);
  }
  throw new Error("nothing waits");
};

const server = path.join(path.dirname(createRequire(import.meta.url).resolve("@modelcontextprotocol/server-filesystem/package.json")), "dist/index.js");
const transport = new StdioClientTransport({
  command: COUNTERSIGN, args: ["wrap", "--", "node", server, DATA], cwd: DATA, stderr: "ignore", env: { ...process.env, XDG_STATE_HOME, USER },
});
const client = new Client({ name: "test", version: "1" });
await client.connect(transport);
assert.ok((await client.listTools()).tools.length > 5);

const read = await client.callTool({ name: "read_text_file", arguments: { path: path.join(DATA, "note.txt") } });
assert.equal(read.content[0].text, "hello");

const told = [];
let held = client.callTool({ name: "write_file", arguments: { path: path.join(DATA, "written.txt"), content: "approved" } }, undefined, { onprogress: (p) => told.push(p.message) });
await decide("approve");
let result = await held;
assert.ok(!result.isError, JSON.stringify(result));
assert.ok(told[0].includes(USER) && told[0].includes("/inbox/"), told[0]);

held = client.callTool({ name: "write_file", arguments: { path: path.join(DATA, "denied.txt"), content: "no" } });
await decide("deny");
result = await held;
assert.ok(result.isError && result.content[0].text.includes("NOT executed"), JSON.stringify(result));

await client.close();
console.log("every step came out as told");
process.exit(0);
