// The client graphql-ws, and a bare socket for what it never does.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import {
  authorization,
  bareSocket,
  once,
  socketClient,
  soon,
  whileEventsArrive,
} from './connection.mjs';

const EVENTS = 'subscription { events { idempotencyKey } }';
const INIT = { type: 'connection_init', payload: authorization };

async function initialised() {
  const socket = bareSocket();
  await socket.opened;
  socket.send(INIT);
  assert.deepEqual(await socket.receive(), { type: 'connection_ack' });
  return socket;
}

test('a query and a mutation are answered over the socket', async () => {
  const client = socketClient();
  const asked = await once(client, '{ tenant { name } }');
  assert.deepEqual(asked.data, { tenant: { name: 'Test tenant' } });
  const changed = await once(
    client,
    'mutation ($input: CreateProductInput!) { createProduct(input: $input) { __typename } }',
    { input: { code: 'over-a-socket', name: 'Over a socket' } },
  );
  assert.deepEqual(changed.data, { createProduct: { __typename: 'Product' } });
  await client.dispose();
});

test('many operations share a socket, and each gets its own answer', async () => {
  let sockets = 0;
  const client = socketClient({ lazy: false, on: { opened: () => (sockets += 1) } });
  const names = Array.from({ length: 40 }, (_, number) => `name${number}`);
  const answers = await Promise.all(
    names.map((name) => once(client, `{ ${name}: tenant { environment } }`)),
  );
  assert.deepEqual(
    answers.map(({ data }) => Object.keys(data)[0]),
    names,
  );
  assert.equal(sockets, 1);
  await client.dispose();
});

test('a document that is wrong ends its operation, and not the socket', async () => {
  const closes = [];
  const client = socketClient({ lazy: false, on: { closed: (event) => closes.push(event.code) } });
  for (const wrong of ['{', '{ nothing }', 'query A { tenant { name } } query B { __typename }']) {
    await assert.rejects(once(client, wrong), (errors) => {
      assert.ok(errors[0].extensions.code, JSON.stringify(errors));
      return true;
    });
  }
  assert.equal((await once(client, '{ __typename }')).data.__typename, 'Query');
  assert.deepEqual(closes, []);
  await client.dispose();
});

test('a subscription gives what happens until it is ended', async () => {
  const client = socketClient();
  const stream = client.iterate({ query: EVENTS });
  const first = stream.next();
  const { value } = await whileEventsArrive(first, 'over-a-socket');
  assert.match(value.data.events.idempotencyKey, /^over-a-socket-/);
  await stream.return();
  await client.dispose();
});

test('pings are answered, with what they carry', async () => {
  let pongs = 0;
  const answered = new Promise((resolve) => {
    const client = socketClient({
      lazy: false,
      keepAlive: 20,
      on: {
        pong: (received) => {
          if (received && ++pongs === 3) resolve(client);
        },
      },
    });
  });
  const client = await soon(answered, 'three pongs');
  await client.dispose();
  const socket = bareSocket();
  await socket.opened;
  socket.send({ type: 'ping', payload: { before: 'the key' } });
  assert.deepEqual(await socket.receive(), { type: 'pong', payload: { before: 'the key' } });
  socket.end();
});

test('after a lost connection the client is let in again', async () => {
  let sockets = 0;
  let current, reconnected;
  const again = new Promise((resolve) => (reconnected = resolve));
  const client = socketClient({
    lazy: false,
    retryAttempts: 3,
    retryWait: async () => {},
    on: {
      connected: (socket) => {
        current = socket;
        if (++sockets === 2) reconnected();
      },
    },
  });
  assert.equal((await once(client, '{ __typename }')).data.__typename, 'Query');
  const stream = client.iterate({ query: EVENTS });
  assert.ok(await whileEventsArrive(arrives(stream, /^before-the-break-/), 'before-the-break'));
  current.terminate();
  await soon(again, 'a second socket');
  assert.ok(await whileEventsArrive(arrives(stream, /^after-the-break-/), 'after-the-break'));
  await stream.return();
  await client.dispose();
});

test('the client itself is told why it is not let in: 4401', async () => {
  for (const connectionParams of [{}, { Authorization: 'Bearer afo_live_nobody' }]) {
    const client = socketClient({ connectionParams });
    await assert.rejects(once(client, '{ __typename }'), (event) => event.code === 4401);
  }
});

for (const [what, messages, code] of [
  ['no JSON', ['{'], 4400],
  ['no object', ['[]'], 4400],
  ['a type that is not of the protocol', [INIT, { type: 'start', id: '1' }], 4400],
  ['a subscription without an id', [INIT, { type: 'subscribe', payload: {} }], 4400],
  ['a subscription before the key', [{ type: 'subscribe', id: '1', payload: {} }], 4401],
  ['two initialisations', [INIT, INIT], 4429],
  [
    'an id that is in use',
    [INIT, ...Array(2).fill({ type: 'subscribe', id: '1', payload: { query: EVENTS } })],
    4409,
  ],
]) {
  test(`${what} closes the socket with ${code}`, async () => {
    const socket = bareSocket();
    await socket.opened;
    for (const message of messages) socket.send(message);
    assert.equal(await socket.closed(), code);
  });
}

test('a socket without the protocol is closed with 4406', async () => {
  assert.equal(await bareSocket([]).closed(), 4406);
});

test('the protocol of old is not taken up, so that its clients do not open', async () => {
  await assert.rejects(bareSocket('graphql-ws').opened, /subprotocol/);
});

test('who does not initialise is closed with 4408', async () => {
  const socket = bareSocket();
  await socket.opened;
  assert.equal(await socket.closed(), 4408);
});

test('messages are text', async () => {
  const socket = await initialised();
  socket.send({ type: 'subscribe', id: '1', payload: { query: '{ __typename }' } });
  const { type, id, payload } = await socket.receive();
  assert.deepEqual([type, id, payload.data], ['next', '1', { __typename: 'Query' }]);
  assert.deepEqual(await socket.receive(), { type: 'complete', id: '1' });
  socket.end();
});

/** Whether the stream comes to an event with such a key. */
async function arrives(stream, key) {
  while (true) {
    const { value, done } = await stream.next();
    if (done) return false;
    if (key.test(value.data.events.idempotencyKey)) return true;
  }
}
