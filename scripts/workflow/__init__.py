"""What the Snakefile itself calls: configuration, locks, Slurm, failed jobs."""
