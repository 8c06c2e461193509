"""Who calls: tenants and the API keys that speak for them."""
