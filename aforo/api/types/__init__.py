"""The types of the schema, their queries and their mutations: a few files for each package."""
