"""The wire between a node and the Hub: frames, messages, the sans-I/O protocol, then sessions."""
