"""The pages that a person opens: report and disagreements."""
