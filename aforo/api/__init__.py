"""The edge: GraphQL, and the few routes that are not GraphQL."""
