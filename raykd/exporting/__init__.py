"""Students in the forms that other programs read, each looked at in the program that will run it."""
