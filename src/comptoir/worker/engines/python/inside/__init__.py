"""What stands beside a buyer's program inside the walls: nothing of ours but these files, and the standard library."""
