"""`porten-bench policy`: how long the Hub takes to decide who may serve, and who does."""
