"""INVOICE: stages 7 to 10, from billable units to what is due."""
