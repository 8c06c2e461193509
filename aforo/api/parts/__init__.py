"""What the types of the schema are made of: fields, scalars, lists, streams and permissions."""
