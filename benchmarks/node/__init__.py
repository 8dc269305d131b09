"""`porten-bench node`: what the daemon costs."""
