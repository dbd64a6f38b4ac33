"""Parts shared by several networks."""
