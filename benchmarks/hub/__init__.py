"""`porten-bench hub`: what the whole Hub costs."""
