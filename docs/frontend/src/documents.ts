import { graphql } from './gql';

export const Customers = graphql(`
  query Customers($first: Int!, $after: String) {
    customers(first: $first, after: $after) {
      edges {
        cursor
        node {
          id
          externalId
          name
          currency
          createdAt
        }
      }
      pageInfo {
        hasNextPage
        endCursor
      }
    }
  }
`);

export const Customer = graphql(`
  query Customer($id: ID!) {
    node(id: $id) {
      __typename
      id
      ... on Customer {
        name
        email
      }
    }
  }
`);

export const CreateCustomer = graphql(`
  mutation CreateCustomer($input: CreateCustomerInput!) {
    createCustomer(input: $input) {
      __typename
      ... on Customer {
        id
        name
      }
      ... on Problem {
        code
        message
        field
      }
    }
  }
`);

export const Events = graphql(`
  subscription Events {
    events {
      idempotencyKey
      type
      occurredAt
      properties
    }
  }
`);
