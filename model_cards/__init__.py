"""Card templates and the cards of released models; no code."""
