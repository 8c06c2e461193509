"""What a process tells those who watch it: Prometheus metrics and OpenTelemetry traces."""
