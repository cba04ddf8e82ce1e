"""Is it gone: controls, attacks and probes, thresholds of the verdict, checks of a run."""
