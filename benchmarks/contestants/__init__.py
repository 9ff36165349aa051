"""Who is measured: one contestant a file, each with the programs that it consists of."""
