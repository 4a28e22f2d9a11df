// A CI system that hands a job its ID token: asks a provider for one, as the client and account it is told.
//
// Arguments: provider, client, account. Prints the token.

import { execFileSync } from "node:child_process";

const [issuer, client, account] = process.argv.slice(2);

const post = async (path, form) =>
  (await fetch(issuer + path, { method: "POST", body: new URLSearchParams({ client_id: client, ...form }) })).json();

const begun = await post("/device/auth", { scope: "openid groups" });
const person = new URL("person.mjs", import.meta.url).pathname;
execFileSync(process.execPath, [person, begun.verification_uri_complete, account], { stdio: "inherit" });
const given = await post("/token", {
  grant_type: "urn:ietf:params:oauth:grant-type:device_code",
  device_code: begun.device_code,
});
if (!given.id_token) throw new Error(JSON.stringify(given));
console.log(given.id_token);
