"""`POST /v1/events`: a batch of usage events, in whatever form and encoding it comes."""
