// Apollo Client: a cache by global ids, pages that grow together, subscriptions over graphql-ws.
import { ApolloClient, ApolloLink, HttpLink, InMemoryCache } from '@apollo/client';
import { GraphQLWsLink } from '@apollo/client/link/subscriptions';
import { relayStylePagination } from '@apollo/client/utilities';
import { OperationTypeNode } from 'graphql';
import { createClient } from 'graphql-ws';
import { filter, firstValueFrom } from 'rxjs';
import { WebSocket } from 'ws';
import { CreateCustomer, Customer, Customers, Events } from './documents';
import possibleTypes from './gql/possible-types';

const { AFORO_URL, AFORO_API_KEY } = process.env;
const headers = { Authorization: `Bearer ${AFORO_API_KEY}` };

const socket = createClient({
  url: `${AFORO_URL}/graphql`.replace(/^http/, 'ws'),
  connectionParams: headers,
  webSocketImpl: WebSocket, // In a browser this line goes.
});

const cache = new InMemoryCache({
  possibleTypes: possibleTypes.possibleTypes,
  typePolicies: { Query: { fields: { customers: relayStylePagination() } } },
});

const client = new ApolloClient({
  cache,
  link: ApolloLink.split(
    ({ operationType }) => operationType === OperationTypeNode.SUBSCRIPTION,
    new GraphQLWsLink(socket),
    new HttpLink({ uri: `${AFORO_URL}/graphql`, headers }),
  ),
});

// The first page, then the next: the list in the cache grows.
const customers = client.watchQuery({ query: Customers, variables: { first: 10 } });
const watching = customers.subscribe(() => {});
const { data: first } = await firstValueFrom(
  customers.pipe(filter(({ dataState }) => dataState === 'complete')),
);
const after = first?.customers?.pageInfo?.endCursor;
await customers.fetchMore({ variables: { first: 10, after } });
const shown = client.readQuery({ query: Customers, variables: { first: 10 } });
console.log(shown?.customers.edges.length, 'customers are shown');
watching.unsubscribe();

// Ids are unique over all types, so one entry of the cache holds all that is known of a thing.
const input = { externalId: `apollo-${Date.now()}`, name: 'Apollo', currency: 'USD' };
const { data: made } = await client.mutate({ mutation: CreateCustomer, variables: { input } });
if (made?.createCustomer.__typename !== 'Customer') throw new Error(made?.createCustomer.message);
const { id } = made.createCustomer;
const { data: found } = await client.query({ query: Customer, variables: { id } });
if (found?.node?.__typename === 'Customer') console.log('found', found.node.name);
console.log('cached:', `Customer:${id}` in cache.extract());

// One event, of those that happen from now on.
const event = await new Promise((resolve, reject) => {
  const stream = client.subscribe({ query: Events }).subscribe(({ data, error }) => {
    if (error) reject(error);
    else resolve(data?.events.idempotencyKey);
    stream.unsubscribe();
  });
});
console.log('live:', event);

client.stop();
await socket.dispose();
