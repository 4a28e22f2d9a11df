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
const { Provider } = await import(`${modules}/oidc-provider/lib/index.js`);

const device = "urn:ietf:params:oauth:grant-type:device_code";
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

// A service that gets tokens of its own, and an API that takes these and nothing else: it answers with the token's number.
const service = {
  ...client("tidegate-gate"),
  client_secret: "of-the-gate-and-nobody-else",
  token_endpoint_auth_method: "client_secret_basic",
  application_type: "web",
  grant_types: ["client_credentials"],
};
const api = async (provider, request, response) => {
  const bearer = request.headers.authorization?.match(/^Bearer (.+)$/)?.[1];
  const token = bearer && (await provider.ClientCredentials.find(bearer));
  response.writeHead(token?.isValid ? 200 : 401, { "content-type": "text/plain" });
  response.end(token?.isValid ? `${token.clientId} ${token.scope} ${token.iat}` : "no token");
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
  const callback = provider.callback();
  server.on("request", (request, response) =>
    request.url.startsWith("/api/") ? api(provider, request, response) : callback(request, response),
  );
  console.log(url);
});

// Ends with whoever started it.
process.stdin.on("end", () => process.exit(0)).resume();
