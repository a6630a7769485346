"""What a prediction can be written as."""
