// What relay-compiler reads. The plugin of your bundler puts the artifacts in the place of the tags.
import { graphql } from 'relay-runtime';

export const customers = graphql`
  query documentsCustomersQuery($first: Int!, $after: String) {
    customers(first: $first, after: $after) @connection(key: "documents_customers") {
      edges {
        node {
          id
          ...documentsCustomer_customer
        }
      }
      pageInfo {
        endCursor
        hasNextPage
      }
    }
  }
`;

// For `usePaginationFragment`: a list that fetches its own next page.
export const customerList = graphql`
  fragment documentsCustomerList_query on Query
  @argumentDefinitions(first: { type: "Int!" }, after: { type: "String" })
  @refetchable(queryName: "documentsMoreCustomersQuery") {
    customers(first: $first, after: $after) @connection(key: "documentsList_customers") {
      edges {
        node {
          id
          ...documentsCustomer_customer
        }
      }
    }
  }
`;

// For `useRefetchableFragment`: a thing that is fetched again by its global id.
export const customer = graphql`
  fragment documentsCustomer_customer on Customer
  @refetchable(queryName: "documentsCustomerRefetchQuery") {
    name
    createdAt
  }
`;

export const createCustomer = graphql`
  mutation documentsCreateCustomerMutation($input: CreateCustomerInput!) {
    createCustomer(input: $input) {
      __typename
      ... on Customer {
        id
        name
      }
      ... on Problem {
        code
        message
      }
    }
  }
`;

export const events = graphql`
  subscription documentsEventsSubscription {
    events {
      idempotencyKey
      type
    }
  }
`;
