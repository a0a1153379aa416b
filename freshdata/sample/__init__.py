"""The sample domain: every flight that left New York in 2013, with the weather."""
