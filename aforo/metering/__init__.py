"""EVENT: stages 1 to 6, from a request body to billable units."""
