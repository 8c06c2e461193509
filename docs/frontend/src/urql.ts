// urql: its cache of documents, subscriptions over graphql-ws.
import { createClient } from 'graphql-ws';
import { Client, cacheExchange, fetchExchange, subscriptionExchange } from 'urql';
import { WebSocket } from 'ws';
import { CreateCustomer, Customers, Events } from './documents';

const { AFORO_URL, AFORO_API_KEY } = process.env;
const headers = { Authorization: `Bearer ${AFORO_API_KEY}` };

const socket = createClient({
  url: `${AFORO_URL}/graphql`.replace(/^http/, 'ws'),
  connectionParams: headers,
  webSocketImpl: WebSocket, // In a browser this line goes.
});

const client = new Client({
  url: `${AFORO_URL}/graphql`,
  fetchOptions: { headers },
  preferGetMethod: false,
  exchanges: [
    cacheExchange,
    fetchExchange,
    subscriptionExchange({
      forwardSubscription: ({ query, variables }) => ({
        subscribe: (sink) => ({
          unsubscribe: socket.subscribe({ query: query!, variables }, sink),
        }),
      }),
    }),
  ],
});

const { data, error } = await client.query(Customers, { first: 10 }).toPromise();
if (error) throw error;
console.log(data?.customers.edges.length, 'customers');

const again = await client.query(Customers, { first: 10 }).toPromise();
console.log('asked again:', again.operation.context.meta?.cacheOutcome);

const input = { externalId: `urql-${Date.now()}`, name: 'urql', currency: 'USD' };
const made = await client.mutation(CreateCustomer, { input }).toPromise();
if (made.error) throw made.error;
console.log('made a', made.data?.createCustomer.__typename);

// One event, of those that happen from now on.
const event = await new Promise((resolve, reject) => {
  const stream = client.subscription(Events, {}).subscribe(({ data, error }) => {
    if (error) reject(error);
    else resolve(data?.events.idempotencyKey);
    stream.unsubscribe();
  });
});
console.log('live:', event);

await socket.dispose();
