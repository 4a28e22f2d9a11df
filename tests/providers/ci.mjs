// What GitLab and Buildkite say of a job, on loopback: an issuer with its metadata and keys, whose tokens have the claims that they
// document. How a job gets its token is the test's part: in a variable (GitLab's `id_tokens`), or from the agent's own command
// (`buildkite-agent oidc request-token`), whose output goes into a variable, a file, or to whoever presents it.
//
// It mimics:
// - GitLab, "OpenID Connect (OIDC) Authentication Using ID Tokens", section "Token payload"
//   (https://docs.gitlab.com/ci/secrets/id_token_authentication), and the sample in merge request 116867: numbers and truth values
//   are strings but for `runner_id`, `ref` is a short name beside `ref_type` and `ref_path`, `nbf` is five seconds before `iat`;
// - Buildkite, "buildkite-agent oidc", section "Claims" (https://buildkite.com/docs/agent/v3/cli-oidc): `step_key` is null where a
//   step has no key, `job_id` is of one run of one step, a token lives for five minutes.
//
// POST /token with {"ci": "gitlab" or "buildkite", "audience", "claims": those that are not as below} answers a token.
// Arguments: certificate, key. Prints its URL when it listens.

import { generateKeyPairSync, randomUUID, sign } from "node:crypto";
import { readFileSync } from "node:fs";
import { createServer } from "node:https";

const [certificate, key] = process.argv.slice(2);
const pair = generateKeyPairSync("rsa", { modulusLength: 2048 });
const jwk = { ...pair.publicKey.export({ format: "jwk" }), kid: "ci-1", alg: "RS256", use: "sig" };
const commit = "714a629c0b401fdce83e847fc9589983fc6f46bc";

let minted = 0;

const encoded = (value) => Buffer.from(JSON.stringify(value)).toString("base64url");

function mint(claims) {
  const signed = `${encoded({ alg: "RS256", kid: jwk.kid, typ: "JWT" })}.${encoded(claims)}`;
  const signature = sign("sha256", Buffer.from(signed), pair.privateKey);
  return `${signed}.${signature.toString("base64url")}`;
}

const jobs = {
  gitlab(changes, now) {
    const job = {
      namespace_id: "72", namespace_path: "acme", project_id: "20", project_path: "acme/shop", project_visibility: "private",
      user_id: "1", user_login: "alice", user_email: "alice@example.com", user_access_level: "developer",
      pipeline_id: "574", pipeline_source: "push", job_id: "302",
      ref: "main", ref_type: "branch", ref_path: "refs/heads/main", ref_protected: "true",
      environment: "production", environment_protected: "true", deployment_tier: "production", environment_action: "start",
      runner_id: 1, runner_environment: "self-hosted", sha: commit,
      ci_config_ref_uri: "localhost/acme/shop//.gitlab-ci.yml@refs/heads/main", ci_config_sha: commit,
      ...changes,
    };
    const sub = `project_path:${job.project_path}:ref_type:${job.ref_type}:ref:${job.ref}`;
    return { ...job, sub, jti: randomUUID(), iat: now, nbf: now - 5, exp: now + 3600 };
  },
  buildkite(changes, now) {
    const job = {
      organization_slug: "acme", pipeline_slug: "shop", build_number: 175, build_branch: "main", build_tag: null, build_commit: commit,
      build_source: "webhook", step_key: "deploy", job_id: "0184990a-477b-4fa8-9968-496074483cee",
      agent_id: "0184990a-4782-42b5-afc1-16715b10b8ff", runner_environment: "self-hosted",
      ...changes,
    };
    const step = `ref:refs/heads/${job.build_branch}:commit:${job.build_commit}:step:${job.step_key ?? ""}`;
    const sub = `organization:${job.organization_slug}:pipeline:${job.pipeline_slug}:${step}`;
    // Tokens of one job differ by when they were given: here by more than there is between two.
    minted += 1;
    return { ...job, sub, iat: now - minted, nbf: now - minted, exp: now + 300 - minted };
  },
};

const server = createServer({ cert: readFileSync(certificate), key: readFileSync(key) });
server.listen(0, "127.0.0.1", () => {
  const url = `https://localhost:${server.address().port}`;
  server.on("request", async (request, response) => {
    const answer = (status, body) => response.writeHead(status, { "content-type": "application/json" }).end(JSON.stringify(body));
    if (request.url === "/.well-known/openid-configuration") {
      return answer(200, { issuer: url, jwks_uri: `${url}/.well-known/jwks`, id_token_signing_alg_values_supported: ["RS256"] });
    }
    if (request.url === "/.well-known/jwks") return answer(200, { keys: [jwk] });
    if (request.url !== "/token") return answer(404, {});
    const asked = JSON.parse((await request.toArray()).join(""));
    const claims = jobs[asked.ci](asked.claims, Math.floor(Date.now() / 1000));
    return response.end(mint({ ...claims, iss: url, aud: asked.audience }));
  });
  console.log(url);
});

// Ends with whoever started it.
process.stdin.on("end", () => process.exit(0)).resume();
