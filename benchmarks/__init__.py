"""What `make bench` measures: each figure beside its limit, from one run on one machine."""
