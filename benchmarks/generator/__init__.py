"""What asks: workloads, loads, and a client that notes when tokens came."""
