"""Tables, figures and pages that report the results of runs."""
