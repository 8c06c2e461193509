// The API that the tests talk to, and short ways to wait for it.
import { WebSocket } from 'ws';
import { createClient } from 'graphql-ws';

export const url = `${process.env.AFORO_URL}/graphql`;
export const socketUrl = url.replace(/^http/, 'ws');
export const key = process.env.AFORO_API_KEY;
export const authorization = { Authorization: `Bearer ${key}` };
export { WebSocket };

const PATIENCE_MS = 15_000;

/** The promise, or a failure that says what was waited for. */
export function soon(promise, what) {
  let timer;
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error(`waited in vain for ${what}`)), PATIENCE_MS);
  });
  return Promise.race([promise, late]).finally(() => clearTimeout(timer));
}

/** A client of graphql-ws; options override. */
export function socketClient(options = {}) {
  return createClient({
    url: socketUrl,
    webSocketImpl: WebSocket,
    connectionParams: authorization,
    retryAttempts: 0,
    onNonLazyError: () => {},
    ...options,
  });
}

/** The one result of a query or mutation over a client of graphql-ws. */
export function once(client, query, variables) {
  const result = (async () => {
    for await (const each of client.iterate({ query, variables })) return each;
    throw new Error('there was no result');
  })();
  return soon(result, query);
}

/** A bare socket, for what no client does: `closed` gives the code with which it was closed. */
export function bareSocket(protocol = 'graphql-transport-ws') {
  const socket = new WebSocket(socketUrl, protocol);
  const opened = new Promise((resolve, reject) => {
    socket.once('open', resolve);
    socket.once('error', reject);
  });
  const closed = new Promise((resolve) => socket.once('close', resolve));
  const messages = [];
  const waiting = [];
  socket.on('message', (data, isBinary) => {
    const message = isBinary ? { binary: true } : JSON.parse(data);
    const next = waiting.shift();
    if (next) next(message);
    else messages.push(message);
  });
  return {
    opened: soon(opened, 'a socket'),
    closed: () => soon(closed, 'a close code'),
    send: (message) =>
      socket.send(typeof message === 'string' ? message : JSON.stringify(message)),
    receive: () =>
      messages.length
        ? Promise.resolve(messages.shift())
        : soon(new Promise((resolve) => waiting.push(resolve)), 'a message'),
    end: () => socket.close(),
  };
}

/** Post GraphQL in the plainest way; the data. */
export async function ask(query, variables) {
  const response = await fetch(url, {
    method: 'POST',
    headers: { ...authorization, 'Content-Type': 'application/json' },
    body: JSON.stringify({ query, variables }),
  });
  const { data, errors } = await response.json();
  if (errors) throw new Error(JSON.stringify(errors));
  return data;
}

/** Send events, each with a key of its own, until what waits for one has it; that. */
export async function whileEventsArrive(promise, name) {
  let waiting = true;
  const waited = soon(promise, `an event of ${name}`).finally(() => (waiting = false));
  for (let number = 0; waiting; number += 1) {
    await sendEvent(`${name}-${number}`);
    await Promise.race([waited, new Promise((resolve) => setTimeout(resolve, 100))]);
  }
  return waited;
}

async function sendEvent(idempotencyKey) {
  const event = {
    idempotencyKey,
    type: 'llm.request',
    customer: 'acme',
    occurredAt: process.env.AFORO_NOW,
    properties: { tokens: 1 },
  };
  const response = await fetch(`${process.env.AFORO_URL}/v1/events`, {
    method: 'POST',
    headers: { ...authorization, 'Content-Type': 'application/json' },
    body: JSON.stringify([event]),
  });
  const answer = await response.json();
  if (answer.accepted !== 1) throw new Error(JSON.stringify(answer));
}
