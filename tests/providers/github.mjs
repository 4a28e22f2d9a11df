// What GitHub Actions offers a job, on loopback: an issuer with its metadata and keys, and the endpoint at which a job
// asks for an ID token.
//
// It mimics ("OpenID Connect reference" and "Security hardening with OpenID Connect" in GitHub's documentation):
// - the job's environment has ACTIONS_ID_TOKEN_REQUEST_URL, which already has a query, and ACTIONS_ID_TOKEN_REQUEST_TOKEN;
// - GET of that URL with `&audience=...` and `Authorization: Bearer TOKEN` answers `{"count": N, "value": "the JWT"}`;
// - another token is answered with 401; without an audience, `aud` is the owner's URL;
// - the JWT is RS256, lives for five minutes, and has the claims of a job: repository, ref, workflow, actor and others.
//
// Arguments: certificate, key, JSON object of request token to claims. Prints its URL when it listens.

import { generateKeyPairSync, randomUUID, sign } from "node:crypto";
import { readFileSync } from "node:fs";
import { createServer } from "node:https";

const [certificate, key, jobs] = process.argv.slice(2);
const tokens = new Map(Object.entries(JSON.parse(jobs)));
const pair = generateKeyPairSync("rsa", { modulusLength: 2048 });
const jwk = { ...pair.publicKey.export({ format: "jwk" }), kid: "github-1", alg: "RS256", use: "sig" };

const encoded = (value) => Buffer.from(JSON.stringify(value)).toString("base64url");

function mint(claims) {
  const signed = `${encoded({ alg: "RS256", kid: jwk.kid, typ: "JWT" })}.${encoded(claims)}`;
  const signature = sign("sha256", Buffer.from(signed), pair.privateKey);
  return `${signed}.${signature.toString("base64url")}`;
}

const server = createServer({ cert: readFileSync(certificate), key: readFileSync(key) });
server.listen(0, "127.0.0.1", () => {
  const url = `https://localhost:${server.address().port}`;
  server.on("request", (request, response) => {
    const asked = new URL(request.url, url);
    const answer = (status, body) => response.writeHead(status, { "content-type": "application/json" }).end(JSON.stringify(body));
    if (asked.pathname === "/.well-known/openid-configuration") {
      return answer(200, { issuer: url, jwks_uri: `${url}/.well-known/jwks`, id_token_signing_alg_values_supported: ["RS256"] });
    }
    if (asked.pathname === "/.well-known/jwks") return answer(200, { keys: [jwk] });
    const job = tokens.get((request.headers.authorization ?? "").replace(/^bearer /i, ""));
    if (asked.pathname !== "/idtoken" || !job) return answer(401, { message: "unauthorized" });
    const now = Math.floor(Date.now() / 1000);
    const value = mint({
      iss: url,
      aud: asked.searchParams.get("audience") ?? `https://github.com/${job.repository_owner}`,
      sub: `repo:${job.repository}:ref:${job.ref}`,
      jti: randomUUID(),
      iat: now,
      nbf: now - 600,
      exp: now + 300,
      ...job,
    });
    return answer(200, { count: value.length, value });
  });
  console.log(url);
});

// Ends with whoever started it.
process.stdin.on("end", () => process.exit(0)).resume();
