// Every public call of fal's JavaScript client, unmodified, against a sandbox.
//
//     node --experimental-websocket driver.mjs ORIGIN
//
// The client cannot be told other hosts than fal's: its own door for that, `requestMiddleware`, rewrites them, and so
// does the WebSocket that it finds. Prints one JSON object: scenario → what came of it.

import { createHash } from "node:crypto";
import { ApiError, ValidationError, createFalClient, isCompletedQueueStatus, isQueueStatus } from "@fal-ai/client";

const origin = process.argv[2];
const IMAGE = "fal-ai/flux/schnell";
const SLOW = "fal-ai/veo3.1";
const TEXT = "fal-ai/any-llm";
const LIVE = "fal-ai/fast-lcm-diffusion";
const KITE = { prompt: "a red kite", image_size: { width: 64, height: 64 }, seed: 7 };
const PLEA = { prompt: "say “hello”, in three words", model: "openai/gpt-4o-mini" };

const HOSTS = [
  ["https://queue.fal.run", "/queue"],
  ["https://fal.run", "/run"],
  ["https://rest.fal.ai", "/rest"],
  ["wss://fal.run", "/run"],
];

function here(url) {
  for (const [host, prefix] of HOSTS) {
    if (url.startsWith(host + "/")) {
      const base = host.startsWith("wss") ? origin.replace(/^http/, "ws") : origin;
      return base + prefix + url.slice(host.length);
    }
  }
  return url;
}

const Socket = globalThis.WebSocket;
globalThis.WebSocket = class extends Socket {
  constructor(url, ...more) {
    super(here(String(url)), ...more);
  }
};

const requestMiddleware = async (request) => ({ ...request, url: here(request.url) });
const fal = createFalClient({ credentials: "me:secret", requestMiddleware });

const plain = (value) => JSON.parse(JSON.stringify(value ?? null).replaceAll(origin, "ORIGIN"));
const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

async function refusal(promise) {
  try {
    return { "no refusal": plain(await promise) };
  } catch (error) {
    if (!(error instanceof ApiError)) return { error: error.name, message: error.message };
    return {
      status: error.status,
      body: plain(error.body),
      fields: error instanceof ValidationError ? error.fieldErrors.map((one) => one.loc.join(".")) : null,
    };
  }
}

async function sandbox(path) {
  return (await fetch(`${origin}/sandbox/${path}`)).json();
}

async function sentWith(requestId) {
  const page = await sandbox(`requests/${requestId}`);
  const names = ["x-fal-runner-hint", "x-fal-queue-priority", "x-fal-request-timeout", "x-mine"];
  const headers = Object.fromEntries(names.map((name) => [name, page.headers[name] ?? null]));
  headers["x-fal-request-timeout"] &&= Number(headers["x-fal-request-timeout"]);
  return { headers, query: page.query };
}

async function calling() {
  const run = await fal.run(IMAGE, { input: KITE, startTimeout: 30 });
  return {
    run: run.data,
    "run names its request": run.requestId.length === 36,
    "run refused": await refusal(fal.run(IMAGE, { input: { ...KITE, num_images: 99 } })),
    "run of nothing": await refusal(fal.run("fal-ai/does-not-exist", { input: KITE })),
  };
}

async function queueing() {
  const options = { input: KITE, webhookUrl: "https://example.org/hook?a=1&b=2", priority: "low", hint: "near" };
  const queued = await fal.queue.submit(IMAGE, { ...options, startTimeout: 30, headers: { "X-Mine": "yes" } });
  const requestId = queued.request_id;
  const completed = await fal.queue.subscribeToStatus(IMAGE, { requestId, logs: true, pollInterval: 20 });
  const refused = await fal.queue.submit("fal-ai/flux/dev", { input: { prompt: 5 } });
  await fal.queue.subscribeToStatus("fal-ai/flux/dev", { requestId: refused.request_id, pollInterval: 20 });
  return {
    submit: [queued.status, isQueueStatus(queued), queued.queue_position],
    "submit sent": await sentWith(requestId),
    subscribeToStatus: [completed.status, isCompletedQueueStatus(completed), completed.logs.map((log) => log.message)],
    status: Object.keys(await fal.queue.status(IMAGE, { requestId, logs: true })).sort(),
    result: (await fal.queue.result(IMAGE, { requestId })).data,
    "result names its request": (await fal.queue.result(IMAGE, { requestId })).requestId === requestId,
    "result refused": await refusal(fal.queue.result("fal-ai/flux/dev", { requestId: refused.request_id })),
    "status of nobody": await refusal(fal.queue.status(IMAGE, { requestId: "00000000-0000-4000-8000-000000000000" })),
  };
}

async function cancelling() {
  const running = [];
  for (let number = 0; number < 2; number++) {
    running.push(await fal.queue.submit(SLOW, { input: { prompt: `waves ${number}` } }));
  }
  const queued = await fal.queue.submit(SLOW, { input: { prompt: "waves" } });
  const before = await fal.queue.status(SLOW, { requestId: queued.request_id });
  await fal.queue.cancel(SLOW, { requestId: queued.request_id });
  const after = await fal.queue.status(SLOW, { requestId: queued.request_id });
  const got = await refusal(fal.queue.result(SLOW, { requestId: queued.request_id }));
  for (const one of running) await fal.queue.cancel(SLOW, { requestId: one.request_id });
  return {
    queued: [before.status, before.queue_position],
    cancelled: [after.status, after.error, after.error_type],
    "result of a cancelled one": got,
  };
}

async function subscribing() {
  const ids = [];
  const states = [];
  const told = { onEnqueue: (id) => ids.push(id), onQueueUpdate: (status) => states.push(status.status) };
  const polled = await fal.subscribe(IMAGE, { input: KITE, logs: true, pollInterval: 20, ...told });
  const streamed = await fal.subscribe(IMAGE, { input: KITE, logs: true, mode: "streaming" });
  const events = [];
  const request = await fal.queue.submit(IMAGE, { input: KITE });
  const stream = await fal.queue.streamStatus(IMAGE, { requestId: request.request_id, logs: true });
  for await (const event of stream) events.push(event.status);
  const late = await refusal(fal.subscribe(SLOW, { input: { prompt: "a long wait" }, timeout: 1500, pollInterval: 100 }));
  return {
    subscribe: polled.data,
    "onEnqueue names its request": ids.length === 1 && ids[0] === polled.requestId,
    "onQueueUpdate ends": states.at(-1),
    "subscribe streaming": streamed.data,
    "streamStatus ends": events.at(-1),
    timeout: late.error !== undefined || late.status !== undefined,
  };
}

async function streaming() {
  const texts = [];
  const stream = await fal.stream(TEXT, { input: PLEA });
  for await (const event of stream) texts.push(event);
  const images = await fal.stream(IMAGE, { input: KITE });
  return { stream: plain(texts), "stream done": plain(await images.done()) };
}

async function talking() {
  const answers = [];
  const errors = [];
  const connection = fal.realtime.connect(LIVE, {
    throttleInterval: 0,
    onResult: (answer) => answers.push(answer),
    onError: (error) => errors.push({ message: error.message, body: plain(error.body) }),
  });
  for (const seed of [1, 2]) {
    connection.send({ ...KITE, seed });
    for (let waited = 0; answers.length < seed && errors.length === 0 && waited < 200; waited++) await pause(50);
  }
  connection.close();
  const seen = answers.map((answer) => ({
    ...answer,
    images: (answer.images ?? []).map((image) => ({
      ...image,
      content: { sha256: createHash("sha256").update(image.content).digest("hex"), size: image.content.length },
    })),
  }));
  return { realtime: plain(seen), "realtime errors": errors };
}

async function uploading() {
  const comesBack = async (url) => {
    const reply = await fetch(url);
    const body = Buffer.from(await reply.arrayBuffer());
    return [createHash("sha256").update(body).digest("hex"), body.length, reply.headers.get("content-type")];
  };
  const lifecycle = { expiresIn: "1d", initialAcl: { default: "allow", rules: [] } };
  const small = await fal.storage.upload(new Blob(["some bytes"], { type: "text/plain" }));
  const kept = await fal.storage.upload(new File(["grüße"], "gruß.txt", { type: "text/plain" }), { lifecycle });
  const big = Buffer.alloc(91 * 1024 * 1024);
  for (let place = 0; place < big.length; place += 4096) big.writeUInt32LE(place, place);
  const parts = await fal.storage.upload(new Blob([big], { type: "application/octet-stream" }));
  const whole = createHash("sha256").update(big).digest("hex");
  const given = await fal.storage.transformInput({ list: [new Blob(["in a list"], { type: "text/plain" })], n: 1 });
  const wanted = (await comesBack(parts))[0] === whole;
  return {
    upload: await comesBack(small),
    "upload of a file": await comesBack(kept),
    "upload in parts": wanted,
    transformInput: [await comesBack(given.list[0]), given.n],
  };
}

async function refusedKeys() {
  const stranger = createFalClient({ credentials: "nobody:wrong", requestMiddleware });
  const refused = await refusal(stranger.queue.submit(IMAGE, { input: KITE }));
  return { "a wrong key": [refused.status, refused.body] };
}

const answers = {};
for (const scenario of [calling, queueing, cancelling, subscribing, streaming, talking, refusedKeys, uploading]) {
  Object.assign(answers, await scenario());
}
process.stdout.write(JSON.stringify(plain(answers)), () => process.exit(0));
