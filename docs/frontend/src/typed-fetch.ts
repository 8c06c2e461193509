// No client at all: a document knows the types of its variables and of its result.
import type { TypedDocumentNode } from '@graphql-typed-document-node/core';
import { print } from 'graphql';
import { CreateCustomer, Customers } from './documents';

const { AFORO_URL, AFORO_API_KEY } = process.env;

async function execute<Result, Variables>(
  document: TypedDocumentNode<Result, Variables>,
  variables: Variables,
): Promise<Result> {
  const response = await fetch(`${AFORO_URL}/graphql`, {
    method: 'POST',
    headers: {
      Authorization: `Bearer ${AFORO_API_KEY}`,
      'Content-Type': 'application/json',
      Accept: 'application/graphql-response+json, application/json;q=0.9',
    },
    body: JSON.stringify({ query: print(document), variables }),
  });
  const { data, errors } = await response.json();
  if (errors) throw new Error(errors.map(({ message }: Error) => message).join('\n'));
  return data;
}

const input = { externalId: `acme-${Date.now()}`, name: 'Acme', currency: 'USD' };
const { createCustomer } = await execute(CreateCustomer, { input });
if (createCustomer.__typename === 'Customer') console.log('created', createCustomer.name);
else console.log('not created', createCustomer.code, createCustomer.field, createCustomer.message);

const names: string[] = [];
let after: string | null = null;
do {
  const page: Awaited<ReturnType<typeof more>> = await more(after);
  names.push(...page.edges.map(({ node }) => node.name));
  after = page.pageInfo.hasNextPage ? page.pageInfo.endCursor : null;
} while (after);
console.log(names.length, 'customers');

async function more(after: string | null) {
  return (await execute(Customers, { first: 10, after })).customers;
}
