"""One job: its configuration checked, its parts built, trained, tracked; what the commands at the root call."""
