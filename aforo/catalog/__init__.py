"""What is sold: products, meters, rate plans, entitlements, offerings, cost rates, discounts."""
