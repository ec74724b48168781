"""Several runs trained as one stacked model, and the launcher that does so."""
