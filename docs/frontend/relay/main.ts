// Relay: a connection that grows by pages, a thing fetched again by its id, subscriptions.
import { createClient } from 'graphql-ws';
import {
  commitMutation,
  createOperationDescriptor,
  Environment,
  fetchQuery,
  type GraphQLResponse,
  Network,
  Observable,
  RecordSource,
  requestSubscription,
  Store,
} from 'relay-runtime';
import { WebSocket } from 'ws';
import createCustomer, {
  type documentsCreateCustomerMutation,
} from './__generated__/documentsCreateCustomerMutation.graphql';
import customerAgain, {
  type documentsCustomerRefetchQuery,
} from './__generated__/documentsCustomerRefetchQuery.graphql';
import customers, {
  type documentsCustomersQuery,
} from './__generated__/documentsCustomersQuery.graphql';
import events, {
  type documentsEventsSubscription,
} from './__generated__/documentsEventsSubscription.graphql';

const { AFORO_URL, AFORO_API_KEY } = process.env;
const headers = { Authorization: `Bearer ${AFORO_API_KEY}` };

const socket = createClient({
  url: `${AFORO_URL}/graphql`.replace(/^http/, 'ws'),
  connectionParams: headers,
  webSocketImpl: WebSocket, // In a browser this line goes.
});

const environment = new Environment({
  network: Network.create(
    async ({ text }, variables) => {
      const response = await fetch(`${AFORO_URL}/graphql`, {
        method: 'POST',
        headers: { ...headers, 'Content-Type': 'application/json' },
        body: JSON.stringify({ query: text, variables }),
      });
      return response.json();
    },
    ({ text }, variables) =>
      Observable.create((sink) =>
        socket.subscribe(
          { query: text!, variables },
          {
            next: (result) => sink.next(result as GraphQLResponse),
            error: (error) => sink.error(error as Error),
            complete: () => sink.complete(),
          },
        ),
      ),
  ),
  store: new Store(new RecordSource()),
});

// The first page, then the next: the connection in the store holds both.
const first = await page(null);
await page(first?.customers.pageInfo.endCursor);
const { data } = environment.lookup(createOperationDescriptor(customers, { first: 10 }).fragment);
const shown = data as unknown as documentsCustomersQuery['response'];
console.log(shown.customers.edges.length, 'customers are shown');

const { id } = shown.customers.edges[0].node;
const again = await fetchQuery<documentsCustomerRefetchQuery>(environment, customerAgain, {
  id,
}).toPromise();
console.log('fetched again:', again?.node != null);

const input = { externalId: `relay-${Date.now()}`, name: 'Relay', currency: 'USD' };
const made = await new Promise<string>((resolve, reject) => {
  commitMutation<documentsCreateCustomerMutation>(environment, {
    mutation: createCustomer,
    variables: { input },
    onCompleted: ({ createCustomer }) => resolve(createCustomer.__typename),
    onError: reject,
  });
});
console.log('made a', made);

// One event, of those that happen from now on.
const event = await new Promise((resolve, reject) => {
  const stream = requestSubscription<documentsEventsSubscription>(environment, {
    subscription: events,
    variables: {},
    onNext: (response) => {
      resolve(response?.events.idempotencyKey);
      stream.dispose();
    },
    onError: reject,
  });
});
console.log('live:', event);

await socket.dispose();

function page(after: string | null | undefined) {
  const variables = { first: 10, after };
  return fetchQuery<documentsCustomersQuery>(environment, customers, variables).toPromise();
}
