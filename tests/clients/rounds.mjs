// The official client of the stateless era: a held call that outlives one request, by the client's own rounds.
import { Client, StreamableHTTPClientTransport } from '@modelcontextprotocol/client';

const client = new Client({ name: 'rounds', version: '1' }, { versionNegotiation: { mode: 'auto' } });
await client.connect(new StreamableHTTPClientTransport(new URL(process.env.URL)));
const tools = await client.listTools();
if (!tools.tools.some((tool) => tool.name === 'refund_payment')) throw new Error('no refund_payment');
const started = Date.now();
const result = await client.callTool({ name: 'refund_payment', arguments: JSON.parse(process.env.ARGUMENTS) });
console.log(JSON.stringify({ took: Date.now() - started, error: result.isError ?? false, text: result.content[0].text }));
await client.close();
