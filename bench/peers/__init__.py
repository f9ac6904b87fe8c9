"""What a user would pick instead of Forebay, and Forebay: one file each, all started and asked alike."""
