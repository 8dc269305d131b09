"""`porten-bench calibrate`: the meter measured by itself, against an engine whose truth is known."""
