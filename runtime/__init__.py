"""The node: devices, engines, replicas, scheduling, the relay and the owner's command line."""
