// node-postgres: simple queries, parameters, named prepared statements.
const assert = require("node:assert");
const { Client } = require("pg");

const masked = ({ card_number: card, email: mail }) => {
  assert.ok(card.endsWith("1111") && card !== "4111111111111111", card);
  assert.ok(mail.startsWith("tok_"), mail);
};

async function main() {
  const client = new Client();
  await client.connect();
  masked((await client.query("SELECT card_number, email FROM customers WHERE id = 1")).rows[0]);
  masked((await client.query("SELECT card_number, email FROM customers WHERE id = $1", [1])).rows[0]);
  const named = { name: "cards", text: "SELECT id, card_number, email FROM customers WHERE id = $1" };
  for (let round = 0; round < 3; round += 1) {
    masked((await client.query({ ...named, values: [1] })).rows[0]);
  }
  await assert.rejects(client.query("DROP TABLE orders"), { code: "42501", message: /no-drop/ });
  await assert.rejects(client.query("DELETE FROM orders WHERE $1", [true]), { code: "42501", message: /where-required/ });
  assert.strictEqual((await client.query("SELECT 1 AS one")).rows[0].one, 1);
  await client.end();
  console.log("ok");
}

main().catch((error) => {
  console.error(error);
  process.exit(1);
});
