"""Query strategies: which images of a class to ask the oracle for."""
