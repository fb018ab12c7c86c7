"""Steps downhill: optimisers, single steps, schedules, the way out of a saddle."""
