// A receiver of webhooks, which checks signatures as the Standard Webhooks specification says, in words of its own. It takes
// nothing the first time, as if it were just starting.
//
// Arguments: certificate, key, secret. Prints its URL when it listens, then what it took, one JSON object a line.

import { createHmac, timingSafeEqual } from "node:crypto";
import { readFileSync } from "node:fs";
import { createServer } from "node:https";

const [certificate, key, secret] = process.argv.slice(2);
const signing = Buffer.from(secret.slice("whsec_".length), "base64");
let refusals = 1;

const server = createServer({ cert: readFileSync(certificate), key: readFileSync(key) }, async (request, response) => {
  const chunks = [];
  for await (const chunk of request) chunks.push(chunk);
  const body = Buffer.concat(chunks).toString();
  const { "webhook-id": id, "webhook-timestamp": time, "webhook-signature": signature = "" } = request.headers;
  const expected = createHmac("sha256", signing).update(`${id}.${time}.${body}`).digest();
  const given = Buffer.from(signature.replace(/^v1,/, ""), "base64");
  const fresh = Math.abs(Date.now() / 1000 - Number(time)) < 300;
  if (!fresh || given.length !== expected.length || !timingSafeEqual(given, expected)) return response.writeHead(401).end();
  if (refusals-- > 0) return response.writeHead(500).end();
  response.writeHead(204).end();
  console.log(JSON.stringify({ id, letter: JSON.parse(body) }));
});
server.listen(0, "127.0.0.1", () => console.log(`https://localhost:${server.address().port}`));

// Ends with whoever started it.
process.stdin.on("end", () => process.exit(0)).resume();
