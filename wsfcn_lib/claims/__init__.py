"""Claims: what the papers and their programs claim, and what the results of this kit say of each."""
