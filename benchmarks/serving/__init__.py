"""`porten-bench serving`: one endpoint under load."""
