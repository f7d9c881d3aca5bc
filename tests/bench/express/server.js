// The usual handler: Express, svix over the raw body, one transaction per event by pg.
// The same promises as far as they can be kept by one transaction: a delivery id once, a lock per user, no profile for
// the tombstoned, a deletion only as a claim. Neither does it settle claims, nor check the shape of the tables, nor log.
import express from "express";
import pg from "pg";
import { Webhook } from "svix";

const SCHEMA = "public";
const pool = new pg.Pool({ connectionString: process.env.DATABASE_URL, max: 10 });
const webhook = new Webhook(process.env.CLERK_WEBHOOK_SECRET);

async function absorb(client, messageId, event) {
  const userId = event.data.id;
  await client.query("SELECT pg_advisory_xact_lock(hashtextextended($1 || '/' || $2, 1970694498))", [SCHEMA, userId]);
  const recorded = await client.query(
    "INSERT INTO usersync.deliveries (schema_name, message_id, event_type) VALUES ($1, $2, $3) " +
      "ON CONFLICT DO NOTHING RETURNING 1",
    [SCHEMA, messageId, event.type],
  );
  if (recorded.rowCount === 0) return "repeated";
  if (event.type === "user.deleted") {
    await client.query(
      "INSERT INTO usersync.claims (schema_name, user_id, kind) VALUES ($1, $2, 'deletion') " +
        "ON CONFLICT (schema_name, user_id, kind) DO UPDATE SET due_at = usersync.clock()",
      [SCHEMA, userId],
    );
    return "claimed";
  }
  const inserted = await client.query(
    "INSERT INTO user_progress (user_id) SELECT $2 WHERE NOT EXISTS (" +
      "SELECT FROM usersync.target AS t JOIN usersync.buried AS b ON b.schema_name = t.schema_name " +
      "AND b.user_hash = sha256(t.salt || convert_to(t.instance_id || $2, 'UTF8')) WHERE t.schema_name = $1" +
      ") ON CONFLICT (user_id) DO NOTHING",
    [SCHEMA, userId],
  );
  return inserted.rowCount === 1 ? "created" : "present";
}

async function transact(messageId, event) {
  const client = await pool.connect();
  try {
    await client.query("BEGIN");
    const result = await absorb(client, messageId, event);
    await client.query("COMMIT");
    return result;
  } catch (error) {
    await client.query("ROLLBACK");
    throw error;
  } finally {
    client.release();
  }
}

const app = express();
app.post("/api/webhooks/clerk", express.raw({ type: "*/*", limit: "1mb" }), async (request, response) => {
  let event;
  try {
    webhook.verify(request.body, request.headers);
    event = JSON.parse(request.body);
  } catch {
    return response.status(401).json({ error: "signature" });
  }
  try {
    return response.json({ result: await transact(request.headers["svix-id"], event) });
  } catch {
    return response.status(503).json({ error: "database" });
  }
});

const server = app.listen(0, "127.0.0.1", () => console.log(JSON.stringify({ port: server.address().port })));
process.on("SIGTERM", () => process.exit(0));
