// The sample client against a real Aforo, with something between that goes wrong as told.

import assert from 'node:assert/strict';
import { once } from 'node:events';
import { createServer } from 'node:http';
import { buffer } from 'node:stream/consumers';
import { afterEach, beforeEach, test } from 'node:test';
import { gunzipSync } from 'node:zlib';

const { Aforo, AforoGraphQLError, AforoRefused } = await import(process.env.CLIENT);
const { AFORO_URL, AFORO_API_KEY, AFORO_NOW } = process.env;

let faults; // A status, or 'cut': close after Aforo has taken it.
let asked;
let server;
let url;

beforeEach(async () => {
  faults = [];
  asked = [];
  server = createServer(async (request, response) => {
    const body = await buffer(request);
    const { 'content-encoding': packed, 'content-type': type, authorization } = request.headers;
    const batch = JSON.parse(packed ? gunzipSync(body) : body);
    asked.push({ packed, batch });
    const fault = faults.shift();
    if (typeof fault === 'number') {
      response.writeHead(fault, { 'Retry-After': '0' }).end('{}');
      return;
    }
    const headers = { authorization, 'content-type': type };
    if (packed) headers['content-encoding'] = packed;
    const answer = await fetch(`${AFORO_URL}${request.url}`, { method: 'POST', headers, body });
    const text = await answer.text();
    if (fault === 'cut') request.socket.destroy();
    else response.writeHead(answer.status, { 'Content-Type': 'application/json' }).end(text);
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  url = `http://127.0.0.1:${server.address().port}`;
});

afterEach(() => {
  server.closeAllConnections();
  server.close();
});

const said = [];
const opened = (more = {}) =>
  new Aforo({ url, key: AFORO_API_KEY, lingerMs: 60_000, onVerdict: (each) => said.push(each), ...more });

function track(aforo, name, count, more = {}) {
  for (let number = 0; number < count; number += 1) {
    aforo.track({
      type: 'llm.request',
      customer: 'acme',
      occurredAt: new Date(AFORO_NOW),
      idempotencyKey: `${name}-${number}`,
      properties: { tokens: 1 },
      ...more,
    });
  }
}

for (const fault of [429, 500, 503, 'cut']) {
  test(`after ${fault} the same keys are sent again, and count once`, async () => {
    faults.push(fault);
    const aforo = opened();
    track(aforo, `ts-${fault}`, 5);
    await aforo.flush();
    assert.equal(aforo.waitingCount, 0);
    const keys = asked.map(({ batch }) => batch.map(({ idempotencyKey }) => idempotencyKey));
    assert.equal(keys.length, 2);
    assert.deepEqual(keys[0], keys[1]);
    assert.equal(asked[0].packed, 'gzip');
    assert.deepEqual(said, []);
  });
}

test('events are sent together, and by themselves', async () => {
  const aforo = opened({ batchEvents: 2, lingerMs: 1 });
  track(aforo, 'ts-batch', 5);
  while (aforo.waitingCount > 0) await new Promise((resume) => setImmediate(resume));
  assert.deepEqual(asked.map(({ batch }) => batch.length), [2, 2, 1]);
});

test('a batch that is too large is sent in parts', async () => {
  faults.push(413);
  const aforo = opened();
  track(aforo, 'ts-large', 4);
  await aforo.flush();
  assert.deepEqual(asked.map(({ batch }) => batch.length), [4, 2, 2]);
});

test('a server that takes no compressed bodies gets them plain', async () => {
  faults.push(415);
  const aforo = opened();
  track(aforo, 'ts-plain', 5);
  await aforo.flush();
  assert.deepEqual(asked.map(({ packed }) => packed), ['gzip', undefined]);
});

test('what is refused waits until somebody has set it right', async () => {
  faults.push(403);
  const aforo = opened();
  track(aforo, 'ts-refused', 1);
  await assert.rejects(aforo.flush(), AforoRefused);
  assert.equal(aforo.waitingCount, 1);
  await aforo.flush();
  assert.equal(aforo.waitingCount, 0);
});

test('what was not counted is told', async () => {
  const aforo = opened();
  track(aforo, 'ts-nobody', 1, { customer: 'nobody' });
  await aforo.flush();
  const [{ idempotencyKey, verdict, code }] = said.splice(0);
  assert.deepEqual([idempotencyKey, verdict, code], ['ts-nobody-0', 'QUARANTINED', 'UNKNOWN_CUSTOMER']);
});

test('what cannot be sent exactly, or not at all, is not kept', () => {
  const aforo = opened({ waitingMax: 1 });
  assert.throws(() => track(aforo, 'ts', 1, { properties: { tokens: 0.1 } }), /tokens is 0.1, which is not exact/);
  assert.throws(() => aforo.track({ type: 'llm.request' }), /names its customer/);
  assert.equal(aforo.waitingCount, 0);
  assert.throws(() => track(aforo, 'ts', 2), /1 events wait already/);
});

test('a query is typed, waits its turn, and its errors are thrown', async () => {
  faults.push(429);
  const aforo = opened();
  const { customers } = await aforo.graphql('{ customers(first: 1) { edges { node { externalId } } } }');
  assert.equal(customers.edges[0].node.externalId, 'acme');
  await assert.rejects(aforo.graphql('{ nothing }'), AforoGraphQLError);
  await assert.rejects(new Aforo({ url, key: 'afo_live_x' }).graphql('{ viewer { __typename } }'), Error);
});
