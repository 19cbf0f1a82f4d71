// The TypeScript SDK over a connection that breaks: a proxy cuts the answer to the call off after its first events, and the
// SDK resumes the stream by itself. Usage: resume.mjs, with URL and ARGUMENTS.
import { createServer, request } from "node:http";
import { Client } from "@modelcontextprotocol/sdk/client/index.js";
import { StreamableHTTPClientTransport } from "@modelcontextprotocol/sdk/client/streamableHttp.js";

const target = new URL(process.env.URL);
let cut = 0;
const resumed = [];
const proxy = createServer(async (incoming, outgoing) => {
  const chunks = [];
  for await (const chunk of incoming) chunks.push(chunk);
  const body = Buffer.concat(chunks);
  const isCall = body.includes('"tools/call"');
  if (incoming.headers["last-event-id"]) resumed.push(incoming.headers["last-event-id"]);
  const headers = { ...incoming.headers, host: target.host };
  const onward = request({ host: target.hostname, port: target.port, path: target.pathname, method: incoming.method, headers }, (answer) => {
    outgoing.writeHead(answer.statusCode, answer.headers);
    answer.on("data", (chunk) => {
      outgoing.write(chunk);
      if (isCall && cut === 0 && chunk.includes("progress")) {
        cut = 1;
        setTimeout(() => { outgoing.destroy(); onward.destroy(); }, 50);
      }
    });
    answer.on("end", () => outgoing.end());
  });
  onward.on("error", () => outgoing.destroy());
  outgoing.on("close", () => onward.destroy());
  onward.end(body);
});
await new Promise((done) => proxy.listen(0, "127.0.0.1", done));

const client = new Client({ name: "test", version: "1" });
await client.connect(new StreamableHTTPClientTransport(new URL(`http://127.0.0.1:${proxy.address().port}${target.pathname}`)));
const call = { name: "refund_payment", arguments: JSON.parse(process.env.ARGUMENTS) };
const result = await client.callTool(call, undefined, { onprogress: () => {}, timeout: 30000 });
console.log(JSON.stringify({ cut, resumed, error: Boolean(result.isError), text: result.content[0].text }));
process.exit(0);
