// One call that is held for longer than the SDK's own minute; progress messages keep it waiting. TypeScript SDK, over HTTP.
import { Client } from "@modelcontextprotocol/sdk/client/index.js";
import { StreamableHTTPClientTransport } from "@modelcontextprotocol/sdk/client/streamableHttp.js";

const client = new Client({ name: "test", version: "1" });
await client.connect(new StreamableHTTPClientTransport(new URL(process.env.URL)));
const start = Date.now();
let told = 0;
const options = { onprogress: () => (told += 1), resetTimeoutOnProgress: true };
const result = await client.callTool({ name: "refund_payment", arguments: JSON.parse(process.env.ARGUMENTS) }, undefined, options);
console.log(JSON.stringify({ error: Boolean(result.isError), took: Date.now() - start, told, text: result.content[0].text }));
process.exit(0);
