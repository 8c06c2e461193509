"""STAGES: the ten stages of the path, and what each tenant has set for them."""
