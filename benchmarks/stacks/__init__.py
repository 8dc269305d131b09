"""What is measured: Hub, node and engine as real processes on this machine."""
