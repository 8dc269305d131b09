"""`porten-bench cold-load`: to the first token of a model that is not loaded."""
