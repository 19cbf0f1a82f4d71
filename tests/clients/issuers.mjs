// Vault and the Kubernetes API, as far as the gateway speaks with them, with the answers that the real ones were seen to
// give. Tokens of the gateway are checked by its key set, as Vault's JWT login does.
import { createServer } from "node:http";
import { createRemoteJWKSet, jwtVerify } from "jose";
import { randomBytes, randomUUID } from "node:crypto";

const keys = createRemoteJWKSet(new URL(process.env.JWKS));
const random = () => randomBytes(12).toString("hex");
const secrets = [];
let down = 0;

const vault = { logins: [], tokens: new Map(), wraps: new Map() };
const cluster = { secrets: new Map(), tokens: new Map() };

async function handle(method, path, headers, body) {
  const bearer = headers.authorization?.replace("Bearer ", "");
  const refused = (status, ...errors) => [status, { errors }];
  if (path === "/vault/v1/auth/jwt/login" && method === "POST") {
    if (body.role !== "approved-call") return refused(400, "role could not be found");
    let claims;
    try {
      claims = (await jwtVerify(body.jwt, keys, { audience: "vault", maxTokenAge: "30s" })).payload;
    } catch (error) {
      return refused(400, `error validating token: ${error.message}`);
    }
    const token = { id: `hvs.${random()}`, accessor: `accessor-${random()}`, claims, users: [] };
    vault.tokens.set(token.id, token);
    if (claims.purpose === "mint") vault.logins.push(claims);
    return [200, { auth: { client_token: token.id, accessor: token.accessor, policies: ["approved-call"], lease_duration: 30, renewable: false } }];
  }
  if (path === "/vault/v1/sys/wrapping/unwrap") {
    const wrapped = vault.wraps.get(headers["x-vault-token"]);
    vault.wraps.delete(headers["x-vault-token"]);
    return wrapped ? [200, wrapped] : refused(400, "wrapping token is not valid or does not exist");
  }
  if (path.startsWith("/vault/v1/")) {
    const token = vault.tokens.get(headers["x-vault-token"]);
    if (!token) return refused(403, "permission denied");
    if (path.endsWith("/auth/token/revoke-self")) return vault.tokens.delete(token.id), [204];
    if (path.endsWith("/auth/token/revoke-accessor")) {
      const found = [...vault.tokens.values()].find((one) => one.accessor === body.accessor);
      if (!found) return refused(400, "1 error occurred: invalid accessor");
      return vault.tokens.delete(found.id), [204];
    }
    const role = path.match(/^\/vault\/v1\/database\/creds\/(\w+)-deleter$/)?.[1];
    if (!role) return refused(404);
    const user = { username: `v-jwt-${role}-${random()}`, password: random(), role };
    token.users.push(user);
    secrets.push({ place: `vault/use/${role}`, secret: user.password });
    const answer = { lease_id: `database/creds/${role}-deleter/${random()}`, lease_duration: 3600, renewable: true, data: { username: user.username, password: user.password } };
    if (!headers["x-vault-wrap-ttl"]) return [200, answer];
    const wrap = `hvs.wrap.${random()}`;
    vault.wraps.set(wrap, answer);
    return [200, { lease_id: "", lease_duration: 0, data: null, wrap_info: { token: wrap, ttl: 20 } }];
  }
  if (path.startsWith("/vault/use/")) {
    const users = [...vault.tokens.values()].flatMap((token) => token.users);
    const user = users.find((one) => one.password === bearer);
    if (!user) return [401, {}];
    return [user.role === path.split("/").at(-1) ? 200 : 403, {}];
  }
  if (path === "/kubernetes/use") {
    const bound = cluster.tokens.get(bearer);
    return [bound && cluster.secrets.get(bound.name) === bound.uid ? 200 : 401, {}];
  }
  if (path.startsWith("/kubernetes/")) {
    const status = (code, message) => [code, { kind: "Status", status: "Failure", message, code }];
    if (bearer !== "token-of-the-gateway") return status(401, "Unauthorized");
    const [, namespace, kind, name, sub] = path.match(/^\/kubernetes\/api\/v1\/namespaces\/([^/]+)\/([^/]+)(?:\/([^/]+))?(?:\/([^/]+))?$/) ?? [];
    if (namespace !== "shop") return status(403, "forbidden");
    if (kind === "secrets" && method === "POST") {
      const uid = randomUUID();
      cluster.secrets.set(body.metadata.name, uid);
      return [201, { ...body, metadata: { ...body.metadata, namespace, uid } }];
    }
    if (kind === "secrets" && method === "DELETE") {
      return cluster.secrets.delete(name) ? [200, { kind: "Status", status: "Success" }] : status(404, "not found");
    }
    if (kind === "serviceaccounts" && sub === "token") {
      const { expirationSeconds, boundObjectRef } = body.spec;
      if (expirationSeconds < 600) return status(422, "may not specify a duration less than 10 minutes");
      if (cluster.secrets.get(boundObjectRef.name) !== boundObjectRef.uid) return status(409, "the bound object does not match");
      const token = `eyJhbGciOiJSUzI1NiJ9.${random()}.${random()}`;
      cluster.tokens.set(token, boundObjectRef);
      secrets.push({ place: "kubernetes/use", secret: token });
      return [201, { kind: "TokenRequest", status: { token, expirationTimestamp: new Date(Date.now() + expirationSeconds * 1000).toISOString() } }];
    }
    return status(404, "not found");
  }
  return [404, {}];
}

const server = createServer(async (request, response) => {
  const url = new URL(request.url, "http://x");
  let text = "";
  for await (const chunk of request) text += chunk;
  if (url.pathname === "/seen") {
    const live = [...vault.tokens.values()].map((token) => token.accessor);
    response.setHeader("content-type", "application/json");
    return response.end(JSON.stringify({ secrets, vault: { logins: vault.logins, live }, kubernetes: { secrets: [...cluster.secrets.keys()] } }));
  }
  if (url.pathname === "/down") {
    down = Date.now() + Number(url.searchParams.get("for"));
    return response.end();
  }
  if (Date.now() < down) return response.writeHead(503).end();
  const [status, body] = await handle(request.method, url.pathname, request.headers, text ? JSON.parse(text) : {});
  response.writeHead(status, { "content-type": "application/json" });
  response.end(body && JSON.stringify(body));
});
server.listen(0, "127.0.0.1", () => console.log(JSON.stringify({ address: `http://127.0.0.1:${server.address().port}` })));
