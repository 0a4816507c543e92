"""What tasks are like, and what dynamics are worth on them."""
