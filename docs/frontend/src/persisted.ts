// Persisted documents: what the code generator wrote is uploaded, then ids are sent, not texts.
import { readFile } from 'node:fs/promises';
import { ApolloClient, HttpLink, InMemoryCache } from '@apollo/client';
import { PersistedQueryLink } from '@apollo/client/link/persisted-queries';
import { Customers } from './documents';

const { AFORO_URL, AFORO_API_KEY } = process.env;
const headers = { Authorization: `Bearer ${AFORO_API_KEY}`, 'Content-Type': 'application/json' };

// When you deploy: the file as it is. A document that does not fit the schema refuses it whole.
const upload = await fetch(`${AFORO_URL}/v1/persisted-documents`, {
  method: 'POST',
  headers,
  body: await readFile('src/gql/persisted-documents.json', 'utf8'),
});
if (!upload.ok) throw new Error(await upload.text());
const { stored, known } = await upload.json();
console.log(stored + known, 'documents are persisted');

// In the application: the id stands in the document itself.
const response = await fetch(`${AFORO_URL}/graphql`, {
  method: 'POST',
  headers,
  body: JSON.stringify({ documentId: idOf(Customers), variables: { first: 10 } }),
});
const { data, errors } = await response.json();
if (errors) throw new Error(errors[0].message);
console.log(data.customers.edges.length, 'customers by the id alone');

// The same with Apollo Client, whose form of it has the hash without the name of its kind.
const client = new ApolloClient({
  cache: new InMemoryCache(),
  link: new PersistedQueryLink({
    generateHash: (document) => idOf(document).replace('sha256:', ''),
  }).concat(new HttpLink({ uri: `${AFORO_URL}/graphql`, headers })),
});
const { data: page } = await client.query({ query: Customers, variables: { first: 10 } });
console.log(page?.customers.edges.length, 'customers by Apollo Client');
client.stop();

function idOf(document: object): string {
  return (document as { __meta__: { hash: string } }).__meta__.hash;
}
