// `oidc-provider` as authorization server, and an MCP server of the TypeScript SDK that introspects every token at it.
import { createServer } from "node:http";
import Provider, { errors } from "oidc-provider";
import { McpServer } from "@modelcontextprotocol/sdk/server/mcp.js";
import { StreamableHTTPServerTransport } from "@modelcontextprotocol/sdk/server/streamableHttp.js";
import { createRemoteJWKSet, jwtVerify } from "jose";
import { z } from "zod";

const listen = (server) => new Promise((done) => server.listen(0, "127.0.0.1", () => done(server.address().port)));
const front = createServer((request, response) => handle(request, response));
const port = await listen(front);
const issuer = `http://127.0.0.1:${port}`;
const mcp = `${issuer}/mcp`;
const exchange = "urn:ietf:params:oauth:grant-type:token-exchange";
const jwks = process.env.JWKS ?? "http://127.0.0.1:9/jwks";
const tokens = [];
const deleted = [];

const provider = new Provider(issuer, {
  extraTokenClaims: (_ctx, token) => token.extra,
  clients: [
    { client_id: "gateway", client_secret: "secret-of-the-gateway", authorization_details_types: ["mcp_tool_call"], grant_types: ["client_credentials"], redirect_uris: [], response_types: [] },
    { client_id: "exchanger", token_endpoint_auth_method: "private_key_jwt", token_endpoint_auth_signing_alg: "EdDSA", jwks_uri: jwks,
      authorization_details_types: ["mcp_tool_call"], grant_types: [exchange], redirect_uris: [], response_types: [] },
    { client_id: "notes", client_secret: "secret-of-the-notes", grant_types: [], redirect_uris: [], response_types: [] },
  ],
  features: {
    devInteractions: { enabled: false },
    clientCredentials: { enabled: true },
    introspection: { enabled: true, allowedPolicy: () => true },
    revocation: { enabled: true },
    richAuthorizationRequests: {
      enabled: true,
      types: {
        mcp_tool_call: {
          validate(_ctx, detail) {
            if (!/^sha256:/.test(detail.arguments)) throw new errors.InvalidAuthorizationDetails("no digest");
          },
        },
      },
      authorizationDetailsForGrantSource: () => undefined,
      authorizationDetailsForAccessToken: (ctx) => JSON.parse(ctx.oidc.params.authorization_details ?? "[]"),
      authorizationDetailsForIntrospection: (_ctx, token) => token.rar,
    },
    resourceIndicators: {
      enabled: true,
      defaultResource: () => mcp,
      getResourceServerInfo(_ctx, resource) {
        if (resource !== mcp) throw new errors.InvalidTarget();
        return { scope: "notes:read notes:delete", accessTokenFormat: "opaque", accessTokenTTL: 30 };
      },
    },
  },
  enabledJWA: { clientAuthSigningAlgValues: ["EdDSA"] },
  // Keys of a gateway on this machine: without the guard against addresses of machines of one's own.
  fetch: (url, { dispatcher: _, ...options }) => fetch(url, options),
  ttl: { ClientCredentials: 30 },
  scopes: ["notes:read", "notes:delete"],
});
// RFC 8693: for whom the gateway says that it asks, with the gateway as the actor.
const keys = createRemoteJWKSet(new URL(jwks));
provider.registerGrantType(
  exchange,
  async (ctx) => {
    const { client, params } = ctx.oidc;
    const { payload } = await jwtVerify(params.subject_token, keys, { audience: issuer, maxTokenAge: "60s" });
    const extra = { for: payload.sub, act: { sub: client.clientId } };
    const token = new provider.ClientCredentials({ client, scope: params.scope, aud: params.resource, extra });
    token.rar = JSON.parse(params.authorization_details ?? "[]");
    const access_token = await token.save();
    const issued_token_type = "urn:ietf:params:oauth:token-type:access_token";
    const { scope, rar: authorization_details } = token;
    ctx.body = { access_token, issued_token_type, token_type: "Bearer", expires_in: 30, scope, authorization_details };
  },
  ["subject_token", "subject_token_type", "requested_token_type", "scope", "resource", "authorization_details"],
);
provider.on("client_credentials.saved", (token) => tokens.push(token.jti));

const find = (value) => provider.ClientCredentials.find(value);

async function introspect(token) {
  const body = new URLSearchParams({ token });
  const authorization = "Basic " + Buffer.from("notes:secret-of-the-notes").toString("base64");
  const answer = await fetch(`${issuer}/token/introspection`, { method: "POST", body, headers: { authorization } });
  return answer.json();
}

async function serve(request, response) {
  const token = request.headers.authorization?.replace("Bearer ", "");
  const server = new McpServer({ name: "notes", version: "1" });
  // What lists tools needs no token; what changes something does.
  const remove = async ({ id }) => {
    const seen = token ? await introspect(token) : { active: false };
    if (!seen.active || seen.scope !== "notes:delete" || seen.aud !== mcp) throw new Error("no good token");
    deleted.push(id);
    const { scope, authorization_details, for: caller, act } = seen;
    const told = JSON.stringify({ scope, authorization_details, for: caller, act });
    return { content: [{ type: "text", text: `deleted ${id} with ${told}` }] };
  };
  for (const name of ["delete_note", "exchange", "slow", "wide"]) {
    const act = name === "slow" ? () => new Promise((done) => setTimeout(() => done({ content: [] }), 5000)) : remove;
    server.registerTool(name, { inputSchema: { id: z.string() } }, act);
  }
  const transport = new StreamableHTTPServerTransport({ sessionIdGenerator: undefined, enableJsonResponse: true });
  await server.connect(transport);
  await transport.handleRequest(request, response);
}

async function handle(request, response) {
  if (request.url === "/mcp") return serve(request, response);
  if (request.url === "/seen") {
    const live = await Promise.all(tokens.map(find));
    const active = live.filter((token) => token?.isValid).length;
    response.setHeader("content-type", "application/json");
    return response.end(JSON.stringify({ minted: tokens.length, active, deleted, tokens }));
  }
  return provider.callback()(request, response);
}

console.log(JSON.stringify({ issuer, mcp, seen: `${issuer}/seen` }));
