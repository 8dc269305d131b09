"""`porten-bench capacity`: how many nodes a demand takes."""
