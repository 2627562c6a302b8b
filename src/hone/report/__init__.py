"""The HTML report of a run: one file that opens offline. It reads what a run left on disk, finished or not."""
