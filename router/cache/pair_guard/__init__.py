"""The pair guard: rules that compare two questions and name a difference which gives them different answers, such as a
negation."""
