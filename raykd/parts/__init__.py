"""What methods are made of: a room for each kind of part, a file for each part. README.md here says how to add one."""
