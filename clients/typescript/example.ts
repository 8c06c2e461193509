// Sends three events and asks what was made of them: `AFORO_URL` and `AFORO_API_KEY` say where.

import { Aforo } from './aforo';

interface Customers {
  customers: { edges: { node: { externalId: string; name: string } }[] };
}

const aforo = new Aforo({
  url: process.env.AFORO_URL!,
  key: process.env.AFORO_API_KEY!,
  onVerdict: ({ idempotencyKey, verdict, code }) => console.log(idempotencyKey, verdict, code),
});

const now = new Date(process.env.AFORO_NOW ?? Date.now());
for (const model of ['small', 'large', 'small']) {
  aforo.track({
    type: 'llm.request',
    customer: 'acme',
    occurredAt: now,
    properties: { tokens: '12.5', calls: 1, model },
  });
}
await aforo.flush();
console.log(aforo.waitingCount, 'events wait');

const { customers } = await aforo.graphql<Customers, { first: number }>(
  'query ($first: Int!) { customers(first: $first) { edges { node { externalId name } } } }',
  { first: 10 },
);
for (const { node } of customers.edges) console.log(node.externalId, node.name);
