"""Numbers made of records: statistics, comparisons, convergence, costs."""
