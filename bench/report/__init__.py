"""From the figures of a run to docs/performance.md and its plots."""
