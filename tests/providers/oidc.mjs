// A certified OpenID provider (npm: oidc-provider) on loopback, with device flow and short-lived tokens.
//
// Arguments: directory of the modules, certificate, key, lifetime of ID tokens in seconds, and where the page for answers wants
// browsers back, if there is one. Prints its URL when it listens.
// Everybody is who they say they are; an account's groups are after the dash, its name before it: `alice-dba`.

import { readFileSync } from "node:fs";
import { createServer } from "node:https";

// Its advice for production is not for tests, and nobody reads on after the URL.
console.info = console.warn = () => {};

const [modules, certificate, key, lifetime, redirect] = process.argv.slice(2);
const { Provider, errors } = await import(`${modules}/oidc-provider/lib/index.js`);

const device = "urn:ietf:params:oauth:grant-type:device_code";
const exchange = "urn:ietf:params:oauth:grant-type:token-exchange";
const ID_TOKEN = "urn:ietf:params:oauth:token-type:id_token";
const ACCESS_TOKEN = "urn:ietf:params:oauth:token-type:access_token";
const client = (client_id) => ({
  client_id,
  token_endpoint_auth_method: "none",
  application_type: "native",
  grant_types: [device, "refresh_token"],
  response_types: [],
  redirect_uris: [],
});

// The page for answers: a public client, as PKCE allows.
const page = redirect && {
  ...client("tidegate-web"),
  application_type: "web",
  grant_types: ["authorization_code"],
  response_types: ["code"],
  redirect_uris: [redirect],
};

// A service that gets tokens of its own, or in exchange for those of jobs, and an API that takes these and nothing else: it answers
// with whom the token is for, what it may be used for, and when it was given.
const service = {
  ...client("tidegate-gate"),
  client_secret: "of-the-gate-and-nobody-else",
  token_endpoint_auth_method: "client_secret_basic",
  application_type: "web",
  grant_types: ["client_credentials", exchange],
};
const subjects = new Map();
// Whose refresh tokens were revoked: it tells at /api/revoked.
const revoked = [];
const api = async (provider, request, response) => {
  if (request.url === "/api/revoked") return response.end(revoked.join("\n"));
  const bearer = request.headers.authorization?.match(/^Bearer (.+)$/)?.[1];
  const token = bearer && (await provider.ClientCredentials.find(bearer));
  response.writeHead(token?.isValid ? 200 : 401, { "content-type": "text/plain" });
  const whose = subjects.get(bearer) ?? token?.clientId;
  response.end(token?.isValid ? `${whose} ${token.scope} ${token.iat}` : "no token");
};

// RFC 8693, for ID tokens of jobs. Nobody is called eve.
const exchanged = (provider) => async (ctx) => {
  const { subject_token, subject_token_type, requested_token_type, scope } = ctx.oidc.params;
  const jobs = await provider.Client.find("ci-job");
  const { payload } = await provider.IdToken.validate(subject_token, jobs).catch(() => ({ payload: {} }));
  const sound = subject_token_type === ID_TOKEN && requested_token_type === ACCESS_TOKEN && payload.exp > Date.now() / 1000;
  if (!sound || payload.sub.startsWith("eve")) throw new errors.InvalidGrant("no such subject");
  const token = new provider.ClientCredentials({ client: ctx.oidc.client, scope });
  const access_token = await token.save();
  subjects.set(access_token, payload.sub);
  ctx.body = { access_token, issued_token_type: ACCESS_TOKEN, token_type: "Bearer", expires_in: token.expiration, scope };
};

const server = createServer({ cert: readFileSync(certificate), key: readFileSync(key) });
server.listen(0, "127.0.0.1", () => {
  const url = `https://localhost:${server.address().port}`;
  const provider = new Provider(url, {
    clients: [client("tidegate-cli"), client("ci-job"), client("other-service"), service, ...(page ? [page] : [])],
    scopes: ["openid", "offline_access", "groups", "things.read"],
    claims: { openid: ["sub"], groups: ["groups", "preferred_username"] },
    conformIdTokenClaims: false,
    features: { deviceFlow: { enabled: true }, clientCredentials: { enabled: true }, revocation: { enabled: true } },
    issueRefreshToken: async (_ctx, client, code) =>
      client.grantTypeAllowed("refresh_token") && code.scopes.has("offline_access"),
    rotateRefreshToken: true,
    ttl: { IdToken: Number(lifetime), AccessToken: 600, ClientCredentials: 600, DeviceCode: 600, RefreshToken: 3600, Grant: 3600, Session: 3600, Interaction: 600 },
    cookies: { keys: ["of a test"] },
    findAccount: async (_ctx, id) => ({
      accountId: id,
      claims: async () => ({ sub: id, preferred_username: id.split("-")[0], groups: id.split("-").slice(1) }),
    }),
  });
  provider.on("refresh_token.destroyed", (token) => revoked.push(token.accountId));
  const parameters = ["subject_token", "subject_token_type", "requested_token_type", "scope"];
  provider.registerGrantType(exchange, exchanged(provider), parameters);
  const callback = provider.callback();
  server.on("request", (request, response) =>
    request.url.startsWith("/api/") ? api(provider, request, response) : callback(request, response),
  );
  console.log(url);
});

// Ends with whoever started it.
process.stdin.on("end", () => process.exit(0)).resume();
