"""What stands for the data while candidates are ranked."""
