"""`porten-bench routing`: the Hub's choice of a node."""
