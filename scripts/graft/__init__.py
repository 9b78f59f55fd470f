"""The graft: config.json, shards, ledger, calibration, and the proof of what was kept."""
