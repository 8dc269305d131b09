"""`porten-bench overhead`: what lies between two endpoints."""
