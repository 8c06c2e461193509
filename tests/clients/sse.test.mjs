// The client graphql-sse, with a connection of its own for each operation.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { createClient } from 'graphql-sse';
import { authorization, key, soon, url, whileEventsArrive } from './connection.mjs';

const EVENTS = 'subscription { events { idempotencyKey } }';

function client(options = {}) {
  return createClient({
    url,
    headers: authorization,
    singleConnection: false,
    retryAttempts: 0,
    ...options,
  });
}

async function only(client, query, variables) {
  const results = [];
  for await (const result of client.iterate({ query, variables })) results.push(result);
  assert.equal(results.length, 1);
  return results[0];
}

test('a query and a mutation are streams of one answer', async () => {
  const sse = client();
  const asked = await soon(only(sse, '{ tenant { name } }'), 'a query');
  assert.deepEqual(asked.data, { tenant: { name: 'Test tenant' } });
  const changed = await only(
    sse,
    'mutation ($input: CreateProductInput!) { createProduct(input: $input) { __typename } }',
    { input: { code: 'over-sse', name: 'Over SSE' } },
  );
  assert.deepEqual(changed.data, { createProduct: { __typename: 'Product' } });
  sse.dispose();
});

test('what is wrong with a document is told in the stream', async () => {
  const sse = client();
  for (const wrong of ['{', '{ nothing }', 'subscription { events { nothing } }']) {
    const { errors } = await soon(only(sse, wrong), 'the errors');
    assert.ok(errors[0].extensions.code);
  }
  sse.dispose();
});

test('a subscription gives what happens until it is ended', async () => {
  const sse = client();
  const stream = sse.iterate({ query: EVENTS });
  const { value } = await whileEventsArrive(stream.next(), 'over-sse');
  assert.match(value.data.events.idempotencyKey, /^over-sse-/);
  await stream.return();
  sse.dispose();
});

test('many streams run beside each other', async () => {
  const sse = client();
  const streams = Array.from({ length: 10 }, () => sse.iterate({ query: EVENTS }));
  const firsts = Promise.all(streams.map((stream) => stream.next()));
  for (const { value } of await whileEventsArrive(firsts, 'to-many')) {
    assert.ok(value.data.events.idempotencyKey);
  }
  await Promise.all(streams.map((stream) => stream.return()));
  sse.dispose();
});

test('without a good key the stream is refused, and says why', async () => {
  for (const headers of [{}, { Authorization: `Bearer ${key}0` }]) {
    const stream = client({ headers }).iterate({ query: EVENTS });
    await assert.rejects(soon(stream.next(), 'a refusal'), (error) => {
      assert.equal(error.response?.status, 401);
      return true;
    });
  }
});
