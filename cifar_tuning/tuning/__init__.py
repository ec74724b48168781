"""Search spaces and studies."""
