"""What is installed is what the wheel holds, not the checkout."""
