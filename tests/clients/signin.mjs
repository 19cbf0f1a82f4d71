// An MCP server that takes nobody without a token of its authorization server, `oidc-provider`: published metadata
// (RFC 9728), dynamic registration, PKCE, resource indicators, tokens of 4 s, refresh tokens that are good once.
import { createServer } from "node:http";
import Provider, { errors } from "oidc-provider";
import { McpServer } from "@modelcontextprotocol/sdk/server/mcp.js";
import { StreamableHTTPServerTransport } from "@modelcontextprotocol/sdk/server/streamableHttp.js";
import { z } from "zod";

const listen = (server) => new Promise((done) => server.listen(0, "127.0.0.1", () => done(server.address().port)));
const front = createServer((request, response) => handle(request, response));
const port = await listen(front);
const issuer = `http://127.0.0.1:${port}`;
const mcp = `${issuer}/mcp`;
const seen = { refused: 0, tokens: [], strange: 0, registered: [] };

const provider = new Provider(issuer, {
  clients: [],
  interactions: { url: (_ctx, interaction) => `/interaction/${interaction.uid}` },
  findAccount: (_ctx, id) => ({ accountId: id, claims: () => ({ sub: id }) }),
  features: {
    devInteractions: { enabled: false },
    registration: { enabled: true },
    introspection: { enabled: true, allowedPolicy: () => true },
    revocation: { enabled: true },
    resourceIndicators: {
      enabled: true,
      defaultResource: () => mcp,
      useGrantedResource: () => true,
      getResourceServerInfo(_ctx, resource) {
        if (resource !== mcp) throw new errors.InvalidTarget();
        return { scope: "notes:read notes:write", accessTokenFormat: "opaque", accessTokenTTL: 4 };
      },
    },
  },
  issueRefreshToken: () => true,
  rotateRefreshToken: true,
  scopes: ["openid", "offline_access", "notes:read", "notes:write"],
  ttl: { Grant: 600, Interaction: 600, Session: 600, RefreshToken: 600 },
});
provider.on("registration_create.success", (_ctx, client) => seen.registered.push(client.clientName));

/** A person who is signed in and allows everything. */
async function interact(request, response) {
  const { prompt, params, session, grantId } = await provider.interactionDetails(request, response);
  if (prompt.name === "login") return provider.interactionFinished(request, response, { login: { accountId: "anna" } });
  const grant = grantId ? await provider.Grant.find(grantId) : new provider.Grant({ accountId: session.accountId, clientId: params.client_id });
  if (prompt.details.missingOIDCScope) grant.addOIDCScope(prompt.details.missingOIDCScope.join(" "));
  for (const [resource, scopes] of Object.entries(prompt.details.missingResourceScopes ?? {})) grant.addResourceScope(resource, scopes.join(" "));
  return provider.interactionFinished(request, response, { consent: { grantId: await grant.save() } }, { mergeWithLastSubmission: true });
}

async function serve(request, response) {
  const value = request.headers.authorization?.replace("Bearer ", "");
  const token = value && (await provider.AccessToken.find(value));
  if (!token?.isValid || token.aud !== mcp) {
    seen.refused += 1;
    // What is not a token of this authorization server is somebody else's.
    if (value && !token && !seen.tokens.includes(value)) seen.strange += 1;
    response.writeHead(401, { "www-authenticate": `Bearer error="invalid_token", resource_metadata="${issuer}/.well-known/oauth-protected-resource/mcp", scope="notes:read"` });
    return response.end();
  }
  if (!seen.tokens.includes(value)) seen.tokens.push(value);
  const server = new McpServer({ name: "notes", version: "1" });
  server.registerTool("read_note", { inputSchema: { id: z.string() }, annotations: { readOnlyHint: true } },
    async ({ id }) => ({ content: [{ type: "text", text: `note ${id} for ${token.accountId}` }] }));
  const transport = new StreamableHTTPServerTransport({ sessionIdGenerator: undefined, enableJsonResponse: true });
  await server.connect(transport);
  await transport.handleRequest(request, response);
}

async function handle(request, response) {
  const json = (value) => {
    response.setHeader("content-type", "application/json");
    response.end(JSON.stringify(value));
  };
  if (request.url === "/mcp") return serve(request, response);
  if (request.url.startsWith("/interaction/")) return interact(request, response);
  if (request.url === "/.well-known/oauth-protected-resource/mcp") {
    return json({ resource: mcp, authorization_servers: [issuer], scopes_supported: ["notes:read"], bearer_methods_supported: ["header"] });
  }
  if (request.url === "/seen") {
    const found = await Promise.all(seen.tokens.map((value) => provider.AccessToken.find(value)));
    return json({ ...seen, alive: found.filter((token) => token?.isValid).length });
  }
  if (request.url === "/forget") {
    // The person takes the grant back.
    for (const value of seen.tokens) {
      const token = await provider.AccessToken.find(value);
      if (token) await (await provider.Grant.find(token.grantId))?.destroy();
    }
    const tokens = await Promise.all(seen.tokens.map((value) => provider.AccessToken.find(value)));
    for (const token of tokens) if (token) await provider.RefreshToken.revokeByGrantId(token.grantId).then(() => token.destroy());
    return json({});
  }
  return provider.callback()(request, response);
}

// Nobody reads on after the first line, and what the provider says then must not end it.
process.stdout.on("error", () => {});
console.log(JSON.stringify({ issuer, mcp, seen: `${issuer}/seen`, forget: `${issuer}/forget` }));
