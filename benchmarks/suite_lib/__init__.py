"""What only the commands of benchmarks/ need."""
