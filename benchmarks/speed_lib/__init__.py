"""What only benchmarks/speed.py needs."""
