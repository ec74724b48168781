"""The lab report's claims measured, and its tables and claims on one page."""
