"""Asking a served model a benchmark's questions, and the tables that are made from the records."""
