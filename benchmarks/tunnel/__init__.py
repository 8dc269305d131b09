"""`porten-bench tunnel`: what Hub and node cost for each chunk."""
