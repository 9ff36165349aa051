"""What is measured: one case a file. The list of all is in ``benchmarks.cases.registry``."""
