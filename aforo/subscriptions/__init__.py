"""Who bought it: customers with the hierarchy below them, and their subscriptions."""
